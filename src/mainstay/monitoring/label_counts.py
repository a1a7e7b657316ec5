"""Labels as counts that add up: what became true against what was said, how long it took, what the business had of it.

Of binary labels the score is counted in SCORE_EDGES with the sum of the scores in each bin, fine enough that a metric
computed from the bins is that of the rows to about a thousandth; of classes every pair that occurs; of numbers
and rankings the sums that means and their errors are made of. A label that is corrected takes its old counts back: a
row may be below zero, and sums are right.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl
from msgspec.structs import replace

from mainstay.monitoring.business import evaluate
from mainstay.monitoring.expressions import compile_expression
from mainstay.monitoring.intervals import LEVEL, Estimate, t_value
from mainstay.monitoring.layouts import OTHERS
from mainstay.monitoring.metrics import Measured, measure
from mainstay.monitoring.metrics_ranking import Hits, find_hits, hit_rate, ndcg, reciprocal_rank
from mainstay.monitoring.windows import BUSINESS, DELAYS, LABELS, Group, steps_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mainstay.capability.keeping import BusinessMetric, Labels, Metric
    from mainstay.monitoring.windows import Row

_LOGITS: Final = np.linspace(-9, 9, 145)
SCORE_EDGES: Final = np.unique(np.concatenate([np.arange(1, 200) / 200, 1 / (1 + np.exp(-_LOGITS))]))
NO_SCORE: Final = len(SCORE_EDGES) + 1  # the bin of decisions without one
DELAY_HOURS: Final = np.array(
    [0, 1, 2, 3, 6, 12, 18, *(24 * np.arange(1, 61)), *(168 * np.arange(9, 53)), 8_766, 17_532], np.float64
)
BETWEEN: Final = "\x1f"  # a truth and a prediction, in a key
MOST_TOP: Final = 100  # of a list that was offered: hits further down are not counted
MOST_PAIRS: Final = 4_096  # of classes, in one row of counts
MOST_EXPANDED: Final = 2_000_000  # rows that counts are made of again, to compute a metric

_OUTCOME: Final = "outcome_json"


def count_labels(
    labels: Labels, frame: pl.DataFrame, segments: Mapping[str, Sequence[str]], hours: float, sign: int
) -> list[Row]:
    """Rows of counts of labelled decisions; `sign` is 1, or -1 to take them back.

    `frame` is that of `labelled.read_labelled` for one version. Only answers of the model that have a label count.
    """
    rows = frame.filter(pl.col("outcome") == "answered", pl.col("truth").is_not_null())
    if not rows.height:
        return []
    rows = rows.with_columns(steps_of(rows["at"], hours).alias("step"))
    counted = _counted(labels, rows).with_columns(
        pl.col("delay_seconds").map_batches(_delay_bins, pl.Int64).alias("late")
    )
    found = _of_groups(labels, counted, sign, None)
    for field, values in segments.items():
        own = pl.col(f"segment.{field}")
        value = pl.when(own.is_in(list(values))).then(own).otherwise(pl.lit(OTHERS))
        found += _of_groups(labels, counted.with_columns(value.alias("value")), sign, field)
    return found


def reads_outcome(metric: BusinessMetric) -> bool:
    """Whether a business metric has no value before there is a label."""
    return any(field.side == "outcome" for field, _ in compile_expression(metric.expression).reads)


def count_business(
    metrics: Sequence[BusinessMetric], joined: pl.DataFrame, hours: float, sign: int, *, labelled: bool
) -> list[Row]:
    """Sums of business metrics. `labelled`: of those whose expression reads the outcome; else of all others.

    `joined` has `at`, `version`, `stage`, `input`, `output` and, of labelled ones, `outcome_json`, JSON text.
    """
    if not joined.height:
        return []
    found: list[Row] = []
    for metric in metrics:
        if reads_outcome(metric) is not labelled:
            continue
        compiled = compile_expression(metric.expression)
        rows = joined if _OUTCOME in joined.columns else joined.with_columns(pl.lit(None, pl.String).alias(_OUTCOME))
        valued = rows.select(steps_of(rows["at"], hours).alias("step"), "version", "stage").with_columns(
            evaluate(compiled, rows).alias("x")
        )
        x = pl.when(pl.col("x").is_finite()).then("x")
        sums = [x.count().alias("n"), x.sum(), (x**2).sum().alias("xx"), x.null_count().alias("left_out")]
        groups = valued.group_by("step", "version", "stage").agg(sums)
        for step, version, stage, n, x, xx, left_out in groups.iter_rows():
            own = {"sums": [sign * float(n), sign * x, sign * xx], "counts": [sign * left_out]}
            found.append(Group(step, version, stage).row(BUSINESS, metric.name, sign * n, **own))
    return found


def _counted(labels: Labels, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with what is counted of them: `place` or `key`, and `s`, the list of what is added up."""
    match labels.kind:
        case "binary":
            score = rows["score"].to_numpy()
            bins = np.where(np.isnan(score), NO_SCORE, np.searchsorted(SCORE_EDGES, score, side="right"))
            said = rows["prediction"].cast(pl.Int64).fill_null(2).to_numpy()
            places = bins * 6 + rows["truth"].cast(pl.Int64).to_numpy() * 3 + said
            return rows.with_columns(pl.Series("place", places, pl.Int64), pl.col("score").fill_null(0.0).alias("s"))
        case "classes":
            key = pl.concat_str("truth", pl.col("prediction").fill_null(""), separator=BETWEEN)
            return rows.with_columns(key.alias("key"))
        case "number":
            return rows.filter(pl.col("prediction").is_not_null()).with_columns(
                (pl.col("prediction") - pl.col("truth")).alias("e")
            )
        case "ranking":
            return _patterns(rows.filter(pl.col("prediction").is_not_null(), pl.col("truth").list.len() > 0))


def _patterns(rows: pl.DataFrame) -> pl.DataFrame:
    """Of each list how many items were relevant and where among the first MOST_TOP they stood, as a key."""
    if not rows.height:
        return rows.with_columns(pl.lit(None, pl.String).alias("key"))
    hits = find_hits(rows["truth"], rows["prediction"], MOST_TOP)
    places: list[list[int]] = [[] for _ in range(rows.height)]
    for of, place in zip(hits.of.tolist(), hits.place.tolist(), strict=True):
        places[of].append(place)
    keys = [f"{n}:{','.join(map(str, sorted(own)))}" for n, own in zip(hits.relevant.tolist(), places, strict=True)]
    return rows.with_columns(pl.Series("key", keys, pl.String))


def _delay_bins(seconds: pl.Series) -> pl.Series:
    hours = seconds.fill_null(0.0).to_numpy() / 3_600
    return pl.Series(np.searchsorted(DELAY_HOURS, hours, side="right") - 1, dtype=pl.Int64)


def _of_groups(labels: Labels, counted: pl.DataFrame, sign: int, field: str | None) -> list[Row]:
    by = ["step", "version", "stage", *(["value"] if field else [])]
    found: list[Row] = []
    for names, rows in counted.group_by(by, maintain_order=True):
        step, version, stage, value = (*names, None)[:4]
        group = Group(step, version, stage, field, value)
        found.append(group.row(LABELS, labels.kind, sign * rows.height, **_content(labels, rows, sign)))
        if field is None:
            late = rows["late"].value_counts(sort=True)
            own = {"places": late["late"].to_list(), "counts": (sign * late["count"].cast(pl.Int64)).to_list()}
            found.append(group.row(DELAYS, "", sign * rows.height, **own))
    return found


def _content(labels: Labels, rows: pl.DataFrame, sign: int) -> dict[str, Any]:
    match labels.kind:
        case "binary":
            groups = rows.group_by("place").agg(pl.len().cast(pl.Int64).alias("n"), pl.col("s").sum()).sort("place")
            return {
                "places": groups["place"].to_list(),
                "counts": (sign * groups["n"]).to_list(),
                "sums": (sign * groups["s"]).to_list(),
            }
        case "classes" | "ranking":
            pairs = rows["key"].value_counts(sort=True).head(MOST_PAIRS)
            return {"keys": pairs["key"].to_list(), "counts": (sign * pairs["count"].cast(pl.Int64)).to_list()}
        case "number":
            e, t = rows["e"].to_numpy(), rows["truth"].to_numpy()
            powers = (e**0, e, e**2, np.abs(e), e**4, t, t**2, t**3, t**4, e**2 * t, e**2 * t**2)
            return {"sums": [sign * float(each.sum()) for each in powers]}


# Metrics of what was counted.


def measured(metric: Metric, labels: Labels, rows: pl.DataFrame, *, level: float = LEVEL) -> Measured:
    """A metric of all labels in rows of the kind LABELS: of one version, segment and window."""
    if labels.kind == "number":
        sums = _added(rows["sums"])
        n = round(sums[0]) if len(sums) else 0
        return Measured(metric=metric.name, estimate=_of_sums(metric.name, sums, level), n=n, level=level)
    if labels.kind == "ranking":
        return _of_patterns(metric, rows, level)
    return measure(metric, labels.kind, _expanded(labels, rows), level=level)


def measured_segments(
    metric: Metric, labels: Labels, rows: pl.DataFrame, *, fewest: int, level: float = LEVEL
) -> list[Measured]:
    """`metric` for each value, with at least `fewest` labels, of each segment field; most labels first.

    All the intervals hold together with `level` (Bonferroni): a segment that stands out does not do so because many
    were looked at.
    """
    own = rows.filter(pl.col("segment").is_not_null())
    groups = own.group_by("segment", "value").agg(pl.col("rows").sum()).filter(pl.col("rows") >= fewest)
    each = 1 - (1 - level) / max(1, groups.height)
    found = []
    for field, value, _ in groups.sort("rows", "segment", "value", descending=[True, False, False]).iter_rows():
        segment = own.filter(pl.col("segment") == field, pl.col("value") == value)
        one = measured(metric, labels, segment, level=each)
        found.append(replace(one, segment=(field, value), compared=groups.height))
    return found


def positives(labels: Labels, rows: pl.DataFrame) -> dict[str, int]:
    """How often each truth came: of binary labels `true` and `false`, of classes each; of others nothing."""
    found: dict[str, int] = {}
    if labels.kind == "binary":
        for place, n, _ in _cells(rows).iter_rows():
            name = "true" if place % 6 >= 3 else "false"
            found[name] = found.get(name, 0) + n
    elif labels.kind == "classes":
        for key, n in _keyed(rows):
            name = key.partition(BETWEEN)[0]
            found[name] = found.get(name, 0) + n
    return found


def score_bins(rows: pl.DataFrame, groups: int = 10) -> list[tuple[float, int, int]]:
    """Of binary labels the mean score, labels and positives of about `groups` groups of equal size, in order."""
    cells = _cells(rows).filter(pl.col("place") < NO_SCORE * 6)
    if not cells.height:
        return []
    cells = cells.with_columns(pl.col("place") // 6, (pl.col("place") % 6 >= 3).alias("yes"))
    bins = cells.group_by("place").agg(
        pl.col("n").sum(), pl.col("s").sum(), (pl.col("n") * pl.col("yes")).sum().alias("yes")
    )
    bins = bins.filter(pl.col("n") > 0).sort("place")
    middle = bins["n"].cum_sum() - bins["n"] / 2
    group = (middle * groups / max(1, bins["n"].sum())).cast(pl.Int64)
    summed = (
        bins.with_columns(group.alias("group"))
        .group_by("group", maintain_order=True)
        .agg(pl.col("n", "s", "yes").sum())
    )
    return [(s / n, n, yes) for n, s, yes in summed.select("n", "s", "yes").iter_rows()]


def delays(rows: pl.DataFrame) -> dict[int, int]:
    """Labels by the bin of DELAY_HOURS that they came in, of rows of the kind DELAYS."""
    return {place: n for place, n, _ in _cells(rows).iter_rows() if n > 0}


class BusinessValue(NamedTuple):
    """A business metric of some decisions."""

    estimate: Estimate | None  # of the mean, with Student's interval; None where no decision has a value
    n: int  # decisions with a value
    left_out: int  # decisions without one


def business_value(rows: pl.DataFrame, *, level: float = LEVEL) -> BusinessValue:
    """A business metric of all decisions in rows of the kind BUSINESS, of one metric."""
    sums, left_out = _added(rows["sums"]), int(rows["counts"].list.sum().sum())
    n = round(sums[0]) if len(sums) else 0
    estimate = _mean_of(n, float(sums[1]), float(sums[2]), level) if n >= 1 else None
    return BusinessValue(estimate, max(0, n), left_out)


def _cells(rows: pl.DataFrame) -> pl.DataFrame:
    """`place`, how many `n`, and the sum `s` of what was added up there."""
    if not rows.height:
        return pl.DataFrame(schema={"place": pl.Int64, "n": pl.Int64, "s": pl.Float64})
    columns = rows.select(
        "places",
        "counts",
        pl.when(pl.col("sums").list.len() > 0).then("sums").otherwise(pl.col("counts").cast(pl.List(pl.Float64))),
    )
    flat = columns.filter(pl.col("places").list.len() > 0).explode("places", "counts", "sums", empty_as_null=False)
    found = flat.group_by(pl.col("places").alias("place")).agg(
        pl.col("counts").sum().alias("n"), pl.col("sums").sum().alias("s")
    )
    return found.filter(pl.col("n") > 0).sort("place")


def _keyed(rows: pl.DataFrame) -> list[tuple[str, int]]:
    flat = (
        rows.filter(pl.col("keys").list.len() > 0)
        .select("keys", "counts")
        .explode("keys", "counts", empty_as_null=False)
    )
    found = flat.group_by("keys").agg(pl.col("counts").sum()).filter(pl.col("counts") > 0).sort("keys")
    return list(found.iter_rows())


def _added(sums: pl.Series) -> NDArray[np.float64]:
    parts = [each for each in sums.to_list() if each]
    total: NDArray[np.float64] = np.array(parts or [[]], np.float64).sum(axis=0)
    return total


def _expanded(labels: Labels, rows: pl.DataFrame) -> pl.DataFrame:
    """Labelled rows as they may have been: what is counted is the same. Too many are thinned evenly."""
    if labels.kind == "classes":
        pairs = _keyed(rows)
        thin = max(1, math.ceil(sum(n for _, n in pairs) / MOST_EXPANDED))
        repeats = [n // thin for _, n in pairs]
        truths, said = zip(*(key.split(BETWEEN, 1) for key, _ in pairs), strict=True) if pairs else ((), ())
        frame = pl.DataFrame(
            {"truth": truths, "prediction": said}, schema={"truth": pl.String, "prediction": pl.String}
        )
        return frame[np.repeat(np.arange(len(pairs)), repeats)] if pairs else frame
    cells = _cells(rows)
    thin = max(1, math.ceil(cells["n"].sum() / MOST_EXPANDED))
    place = cells["place"]
    frame = pl.DataFrame(
        {
            "truth": place % 6 >= 3,
            "prediction": pl.select(pl.when(place % 3 == 2).then(None).otherwise(place % 3 == 1)).to_series(),
            "score": pl.select(
                pl.when(place // 6 == NO_SCORE).then(None).otherwise((cells["s"] / cells["n"]).clip(0.0, 1.0))
            ).to_series(),
        }
    )
    return frame[np.repeat(np.arange(cells.height), (cells["n"] // thin).to_numpy())]


def _of_patterns(metric: Metric, rows: pl.DataFrame, level: float) -> Measured:
    top = min(metric.top, MOST_TOP)
    relevant: list[int] = []
    of: list[int] = []
    place: list[int] = []
    for key, n in _keyed(rows):
        count, _, told = key.partition(":")
        places = [int(each) for each in told.split(",") if each and int(each) < top]
        for _ in range(n):
            of += [len(relevant)] * len(places)
            place += places
            relevant.append(int(count))
    if not relevant:
        return Measured(metric=metric.name, estimate=None, n=0, level=level)
    hits = Hits(np.array(relevant), np.array(of, np.int64), np.array(place, np.int64), top)
    return Measured(metric=metric.name, estimate=_RANKED[metric.name](hits, level=level), n=len(relevant), level=level)


_RANKED: Final = {"ndcg": ndcg, "hit_rate": hit_rate, "reciprocal_rank": reciprocal_rank}


def _of_sums(name: str, sums: NDArray[np.float64], level: float) -> Estimate | None:
    """As `metrics_number` from rows, with z in the place of t: that from sums of powers."""
    if not len(sums) or sums[0] < 1:
        return None
    n, e, ee, absolute, e4 = sums[:5].tolist()
    match name:
        case "mae":
            found = _mean_of(n, absolute, ee, level)
            return Estimate(found.value, max(0.0, found.low), found.high)
        case "bias":
            return _mean_of(n, e, ee, level)
        case "rmse":
            return _root(n, ee, e4, level)
        case _:
            return _explained(sums, level)


def _mean_of(n: float, total: float, squares: float, level: float) -> Estimate:
    middle = total / n
    if n < 2:
        return Estimate(middle, -math.inf, math.inf)
    variance = max(0.0, squares / n - middle**2) * n / (n - 1)
    width = t_value(level, n - 1) * math.sqrt(variance / n)
    return Estimate(middle, middle - width, middle + width)


def _root(n: float, squares: float, fourths: float, level: float) -> Estimate:
    middle = squares / n
    if n < 2 or middle <= 0:
        return Estimate(math.sqrt(max(0.0, middle)), 0.0, math.inf if n < 2 else 0.0)
    deviation = math.sqrt(max(0.0, fourths / n - middle**2) * n / (n - 1))
    width = t_value(level, n - 1) * deviation / math.sqrt(n) / middle
    root = math.sqrt(middle)
    return Estimate(root, root * math.exp(-width / 2), root * math.exp(width / 2))


def _explained(sums: NDArray[np.float64], level: float) -> Estimate | None:
    n = float(sums[0])
    _, ee, _, e4, t, tt, ttt, tttt, eet, eett = (sums / n)[1:].tolist()
    variance = tt - t * t
    if n < 3 or variance <= 0:
        return None
    rest = ee / variance
    if rest <= 0:
        return Estimate(1.0, 1.0, 1.0)
    fourth = tttt - 4 * t * ttt + 6 * t * t * tt - 3 * t**4
    crossed = eett - 2 * t * eet + t * t * ee
    influence = max(0.0, e4 - 2 * rest * crossed + rest**2 * fourth) / variance**2
    width = t_value(level, n - 1) * math.sqrt(influence / n) / rest
    return Estimate(1 - rest, 1 - rest * math.exp(width), 1 - rest * math.exp(-width))
