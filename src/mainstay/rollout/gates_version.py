"""Checks of a version by itself, and of its contract beside the one in force."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mainstay.authority.policy import compile_authority
from mainstay.catalog.reference import read_reference
from mainstay.catalog.samples import check_outputs, read_samples
from mainstay.catalog.types import MANIFEST
from mainstay.catalog.versions import files_of, open_version
from mainstay.contract.difference import compare_contracts, overall
from mainstay.decision.trying import run_rows
from mainstay.errors import Damaged, Failed, InvalidDocument, Misuse
from mainstay.lake.lake import open_lake
from mainstay.lake.snapshots import open_snapshot
from mainstay.monitoring.expressions import compile_expression
from mainstay.monitoring.performance import ENOUGH_TO_PASS, judge
from mainstay.rollout.gates_types import Found
from mainstay.runtime.types import Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.capability.types import Promise, Rung
    from mainstay.contract.difference_types import Change, Effect
    from mainstay.monitoring.performance import Verdict as Judged
    from mainstay.rollout.gates_looking import Looking
    from mainstay.rollout.gates_types import Verdict

SAMPLE_SECONDS: Final = 120.0  # for the samples of an isolated model
REFERENCE_SECONDS: Final = 600.0
MOST_REFERENCE_ROWS: Final = 20_000  # that are run, from the beginning of the file
RUNBOOK: Final = "runbook.md"
MAX_RUNBOOK_BYTES: Final = 1 << 20

# Names that are reserved for examples, and get no mail (RFC 2606, RFC 6761).
_NOT_REAL: Final = ("example", "example.com", "example.net", "example.org", "invalid", "localhost", "test")
_BY_EFFECT: Final[dict[Effect, Verdict]] = {"compatible": "pass", "breaking": "fail", "unknown": "unknown"}
_SHOWN: Final = 3


def version_whole(looking: Looking) -> Found:
    required = "every file as it was registered"
    try:
        manifest = looking.opened.manifest
    except Damaged as error:
        return Found("fail", error.message, required, evidence=(looking.version,))
    made = datetime.fromtimestamp((looking.opened.path / MANIFEST).stat().st_mtime, UTC)
    files = len(files_of(manifest))
    return Found("pass", f"{files} files, as registered", required, evidence=(looking.version,), since=made)


def model_signed(looking: Looking) -> Found:
    trust = looking.opened.manifest.trust
    required = "a signature that `register --signed-by` has verified"
    if trust is None or trust.signed_by is None:
        return Found("unknown", "no signature was asked for", required, needed=False)
    evidence = () if trust.signature is None else (trust.signature.digest,)
    return Found("pass", f"signed with the key {trust.signed_by[:16]}", required, needed=False, evidence=evidence)


def samples_run(looking: Looking) -> Found:
    declared, manifest = looking.declared, looking.opened.manifest
    required = "an output that keeps the contract, for every record"
    evidence = (manifest.samples.digest,)
    if manifest.runtime == "remote":
        return Found("unknown", "the model runs elsewhere", required, needed=False, evidence=evidence)
    path = looking.opened.path / manifest.samples.path
    rows = read_samples(path.read_bytes(), str(path), declared.input)
    try:
        check_outputs(declared, run_rows(looking.opened, declared, rows, seconds=SAMPLE_SECONDS))
    except Failed as error:
        return Found("fail", error.message, required, evidence=evidence)
    return Found("pass", f"{len(rows)} of {len(rows)} records answered", required, evidence=evidence)


def conversion_agrees(looking: Looking) -> Found:
    conversion = looking.opened.manifest.conversion
    if conversion is None:
        return Found("pass", "nothing was converted: the model runs as it was brought", "as brought, or no difference")
    required = f"a difference of at most {conversion.tolerance:g} on every sample"
    observed = f"at most {conversion.max_difference:.3g} on {conversion.rows} samples"
    agrees = conversion.max_difference <= conversion.tolerance
    return Found("pass" if agrees else "fail", observed, required)


def policies_compile(looking: Looking) -> Found:
    required = "policies that Cedar validates against the contract"
    evidence = (looking.opened.manifest.authority.digest,)
    try:
        authority = compile_authority(looking.declared)
    except InvalidDocument as invalid:
        return Found("fail", str(invalid.problems[0]), required, evidence=evidence)
    count = len(authority.policies)
    return Found("pass", f"{count} {'policy' if count == 1 else 'policies'}", required, evidence=evidence)


def expressions_compile(looking: Looking) -> Found:
    numbers = looking.declared.capability.monitoring.business
    required = "expressions that can be read"
    for each in numbers:
        try:
            compile_expression(each.expression)
        except Misuse as error:
            return Found("fail", f"{each.name}: {error.message}", required)
    return Found("pass", f"{len(numbers)} expressions" if numbers else "none is declared", required)


def contract_compatible(looking: Looking) -> Found:
    required = "no change that breaks who sends or who reads"
    mine = looking.opened.manifest.contract.digest
    if looking.release is None or looking.in_force is None:
        return Found("pass", "nothing is in force: nobody relies on a contract yet", required, evidence=(mine,))
    theirs = looking.release.contract
    if mine == theirs:
        return Found("pass", "it is the contract in force", required, evidence=(mine,))
    changes = compare_contracts(looking.in_force.contract, looking.declared.contract)
    effect = overall(changes)
    return Found(_BY_EFFECT[effect], _changed(changes, effect), required, evidence=(theirs, mine))


def _changed(changes: Sequence[Change], effect: str) -> str:
    worst = [each for each in changes if effect in {each.producers.effect, each.consumers.effect}]
    listed = ", ".join(
        f"{each.object}{'.' if each.path else ''}{each.path} {each.key}".strip() for each in worst[:_SHOWN]
    )
    more = f" and {len(worst) - _SHOWN} more" if len(worst) > _SHOWN else ""
    return f"{len(worst)} {effect} of {len(changes)} changes: {listed}{more}" if changes else "no change"


def reference_fitted(looking: Looking) -> Found:
    manifest, reference = looking.opened.manifest, looking.declared.capability.reference
    required = "a profile of the reference rows"
    if reference is None:
        return Found("unknown", "no reference rows are declared: novelty is not judged", required, needed=False)
    if manifest.profile is None:
        return Found("fail", "no profile was fitted", required)
    calibration = manifest.calibration
    confidence = "confidence is not calibrated"
    if calibration is not None:
        before, after = calibration.error_before, calibration.error_after
        confidence = (
            f"confidence calibrated by {calibration.method}, its error {before:.3f} before and {after:.3f} after"
        )
    observed = f"{manifest.profile.rows:,} rows; {confidence}"
    return Found("pass", observed, required, evidence=(manifest.profile.file.digest,))


def promise_on_reference(looking: Looking) -> Found:
    declared, stored = looking.declared, looking.opened.manifest.reference
    promise, reference = declared.capability.promise, declared.capability.reference
    required = _promised(promise)
    if stored is None or reference is None or reference.label is None or reference.label != promise.positive:
        missing = "no reference rows with the promised outcome are declared"
        return Found("unknown", missing, required or "nothing is promised", needed=False)
    if not required or promise.score is None:
        return Found("pass", "nothing is promised", "nothing", needed=False)
    if looking.opened.manifest.runtime == "remote":
        return Found("unknown", "the model runs elsewhere", required, needed=False, evidence=(stored.digest,))
    path = looking.opened.path / stored.path
    inputs, labels = read_reference(path.read_bytes(), str(path), declared)
    known = [i for i, label in enumerate(labels[:MOST_REFERENCE_ROWS]) if label is not None]
    results = run_rows(looking.opened, declared, [inputs[i] for i in known], seconds=REFERENCE_SECONDS)
    place = declared.output.fields.index(promise.score)
    scored = [
        (bool(labels[i]), float(result.values[place]))
        for i, result in zip(known, results, strict=True)
        if isinstance(result, Prediction) and isinstance(result.values[place], int | float)
    ]
    truths = [truth for truth, _ in scored]
    verdicts = judge(promise, truths, [score for _, score in scored])
    enough = min(truths.count(True), truths.count(False)) >= ENOUGH_TO_PASS
    observed = f"{promise_words(verdicts)} on {len(scored):,} rows"
    return Found(worst_of(verdicts), observed, required, needed=enough, evidence=(stored.digest,))


def _promised(promise: Promise) -> str:
    words = [] if promise.roc_auc is None else [f"roc_auc at least {promise.roc_auc:g}"]
    if promise.calibration_error is not None:
        words.append(f"calibration_error at most {promise.calibration_error:g}")
    return ", ".join(words)


def promise_words(verdicts: Sequence[Judged]) -> str:
    """What was observed of a promise, with its interval."""
    said = []
    for each in verdicts:
        value = "not known"
        if each.observed is not None and each.low is not None and each.high is not None:
            value = f"{each.observed:.3f} ({each.low:.3f} to {each.high:.3f})"
        said.append(f"{each.name} {value}")
    return ", ".join(said)


def worst_of(verdicts: Sequence[Judged]) -> Verdict:
    """fail, where one fails; unknown, where one is; pass otherwise."""
    return max((each.verdict for each in verdicts), key=("pass", "unknown", "fail").index, default="pass")


def training_known(looking: Looking) -> Found:
    trained_on = looking.opened.manifest.trained_on
    required = "the snapshot of the rows, as it was when the model was fitted"
    if trained_on is None:
        return Found("unknown", "the declaration names no snapshot", required, needed=False)
    named = f"snapshot {trained_on.snapshot}, {trained_on.rows:,} rows"
    evidence = (f"{trained_on.table}@{trained_on.table_version}", f"sha256:{trained_on.sha256}")
    try:
        snapshot = open_snapshot(open_lake(looking.workspace), trained_on.snapshot)
    except Misuse:
        return Found("unknown", f"{named}: it is not there any more", required, evidence=evidence)
    if snapshot.taken.sha256 != trained_on.sha256:
        return Found("fail", f"{named}: another one has its name now", required, evidence=evidence)
    lost = trained_on.rows - snapshot.rows
    return Found("pass", f"{named}, {lost:,} of them erased since" if lost else named, required, evidence=evidence)


def runbook_there(looking: Looking) -> Found:
    path = looking.workspace.capabilities / looking.capability / RUNBOOK
    required = f"a {RUNBOOK} beside the declaration, without open questions"
    try:
        text = path.read_bytes()[:MAX_RUNBOOK_BYTES].decode(errors="replace")
    except OSError:
        return Found("unknown", f"there is none in {path.parent}", required, needed=False)
    open_lines = sum("TODO" in line for line in text.splitlines())
    if not text.strip() or open_lines:
        return Found("fail", f"{open_lines} open questions" if open_lines else "it is empty", required, needed=False)
    return Found("pass", f"{len(text.splitlines())} lines", required, needed=False)


def owner_reachable(looking: Looking) -> Found:
    owner = looking.declared.capability.owner
    required = "an address that mail can reach"
    domain = owner.contact.rpartition("@")[2].lower().rstrip(".")
    observed = f"{owner.team}, {owner.contact}"
    if any(domain == each or domain.endswith(f".{each}") for each in _NOT_REAL):
        return Found("unknown", f"{observed}: that domain is reserved for examples", required, needed=False)
    return Found("pass", observed, required, needed=False)


def fallback_answers(looking: Looking) -> Found:
    ladder = looking.declared.capability.fallback
    required = "a rung that always has an answer, and versions that are whole"
    if not ladder:
        observed = "no ladder is declared: a call that the model cannot answer is refused"
        return Found("fail", observed, required, needed=False)
    needed = any(each.version is not None for each in ladder)
    for each in ladder:
        if each.version is not None and each.version.startswith("sha256:") and not _stands(looking, each.version):
            return Found("fail", f"version {each.version} is not there, or not whole", required)
    sure = next((i for i, each in enumerate(ladder) if _always_answers(each)), None)
    if sure is None:
        observed = f"each of {len(ladder)} rungs may have no answer"
        return Found("unknown", observed, required, needed=False)
    observed = f"rung {sure + 1} of {len(ladder)} always has an answer"
    return Found("pass", observed, required, needed=needed)


def _always_answers(rung: Rung) -> bool:
    return rung.constant is not None or rung.person is True or any(not case.when for case in rung.rule)


def _stands(looking: Looking, version: str) -> bool:
    try:
        open_version(looking.workspace.versions, version)
    except (Damaged, Misuse):
        return False
    return True
