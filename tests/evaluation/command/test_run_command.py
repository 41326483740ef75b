"""``tunesmith-eval run`` and ``report``: exit codes, files, messages, and what the stage is given."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from reports.evaluation_documents import make_document, make_small_document

from tunesmith_contract.base import sha256_digest
from tunesmith_contract.evaluation import ModelUse
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.layout import artifact_uri
from tunesmith_contract.report import Artifact, EvaluationReport, Outcome, RunReport
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.shared_rules.verdict import Verdict
from tunesmith_data.failures import DataError, Preempted, UserError
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_evaluation.__main__ import main
from tunesmith_evaluation.report.document import EvaluationDocument
from tunesmith_evaluation.report.files import read_report, write_report
from tunesmith_evaluation.stage import evaluate as stage

_MANIFEST = """
baseModel: {uri: model}
candidate: {endpoint: {url: "http://candidate/v1", model: tuned, secretRef: {name: key}}}
suites: [{name: tickets, dataset: {uri: rows.jsonl}, metrics: [{type: ExactMatch}]}]
gates: [{suite: tickets, metric: ExactMatch, expect: Better}]
"""


@dataclass
class Desk:
    """A folder to work in, with a manifest, and a stage that leaves a given report.

    Attributes:
        document: what the stage reports; an exception is raised instead.
        config: what the stage was given.
        token: the content of the Secret as the stage found it.
        output: what the last command has written to standard output and standard error.
    """

    folder: Path
    capture: pytest.CaptureFixture[str]
    document: EvaluationDocument | BaseException = field(default_factory=make_document)
    config: EvaluateConfig | None = None
    token: str = ""
    output: tuple[str, str] = ("", "")

    def run(self, *arguments: str) -> int:
        """Run the command; its exit code."""
        code = main(["run", "eval.yaml", "--secret", "key=secret", *arguments])
        self.output = self.capture.readouterr()
        return code

    def evaluate(
        self, config: EvaluateConfig, storage: Storage, workspace: Workspace, progress: ProgressReporter
    ) -> RunReport:
        """Stage that has answered all items."""
        self.config = config
        self.token = (storage.secrets / "side-candidate" / "token").read_text()
        progress.update(0, 8)
        progress.update(8, 8, part="tickets")
        if isinstance(self.document, BaseException):
            raise self.document
        items = b'{"suite":"tickets"}\n'
        digest = sha256_digest(items)
        uri = artifact_uri(workspace.work, digest).join("items.jsonl")
        workspace.write(uri, items)
        write_report(workspace.path(uri).parent, self.document)
        evaluation = EvaluationReport(
            sides=("candidate", "baseline"),
            results=(),
            policy_digest=digest,
            details=Artifact(uri=str(uri), digest=digest, size_bytes=len(items)),
        )
        return RunReport(stage="evaluate", outcome=Outcome.SUCCEEDED, evaluation=evaluation)


@pytest.fixture
def desk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quiet: Callable[[], None],
) -> Desk:
    """A folder of its own, in which the command is called."""
    for name in ("model", "secret"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret" / "token").write_text("s3cret-token")
    (tmp_path / "rows.jsonl").write_text("")
    (tmp_path / "eval.yaml").write_text(_MANIFEST)
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, capsys)
    monkeypatch.setattr(stage, "evaluate", desk.evaluate)
    return desk


@pytest.fixture
def quiet() -> Any:
    """Undo the silence of logs after a test."""
    import logging

    yield None
    logging.disable(logging.NOTSET)


def judged(verdict: Verdict) -> EvaluationDocument:
    return make_document(verdict=make_document().verdict.model_copy(update={"verdict": verdict}))


@pytest.mark.parametrize(
    ("verdict", "code"), [(Verdict.PASS, 0), (Verdict.FAIL, 1), (Verdict.INCONCLUSIVE, 2)]
)
def test_the_exit_code_is_the_verdict(desk: Desk, verdict: Verdict, code: int) -> None:
    desk.document = judged(verdict)
    assert desk.run() == code
    assert desk.output[0].startswith(f"tickets-v7-eval: {verdict}\n")


def test_all_files_are_in_the_output_folder_and_named(desk: Desk) -> None:
    desk.run("--output", "out")
    assert read_report(desk.folder / "out" / "report.json") == desk.document
    for name in ("report.html", "report.md", "report.json", "junit.xml", "items.jsonl"):
        assert (desk.folder / "out" / name).stat().st_size
        assert f"out/{name}\n" in desk.output[0]
    assert desk.output[1] == ""


def test_the_summary_says_what_decides_and_what_is_left_out(desk: Desk) -> None:
    desk.run()
    out, _ = desk.output
    assert "tickets ExactMatch: better by more than 0.05; measured +0.12 ±0.04" in out
    assert "general ExactMatch: worse by less than 0.02; measured −0.06 ±0.03" in out  # noqa: RUF001
    assert "(advisory)" in out
    assert "about 420 more items would decide" in out
    assert "3 in training data, left out" in out
    assert "The data of task mmlu is not mounted" in out


def test_the_stage_gets_the_manifest_and_the_secrets_but_never_shows_them(desk: Desk) -> None:
    desk.run()
    assert desk.config
    assert desk.config.base_model == f"pvc://this-computer{desk.folder}/model"
    assert desk.config.owner.name == "eval"
    assert desk.token == "s3cret-token"
    assert "s3cret" not in "".join(desk.output)
    for path in (desk.folder / "tunesmith-eval").rglob("*"):
        assert path.is_dir() or b"s3cret" not in path.read_bytes()


def test_errors_have_codes_of_their_own_and_leave_no_old_result(desk: Desk) -> None:
    assert desk.run() == 1
    for error, code in (
        (DataError("InvalidRows", "rows.jsonl:3: broken"), ExitCode.DATA_ERROR),
        (RuntimeError("boom"), ExitCode.INTERNAL_ERROR),
        (Preempted(), ExitCode.PREEMPTED),
        (KeyboardInterrupt(), ExitCode.PREEMPTED),
    ):
        desk.document = error
        assert desk.run() == code >= 10
        assert not (desk.folder / "tunesmith-eval" / "report.json").exists()
        assert not (desk.folder / "tunesmith-eval" / "junit.xml").exists()
        assert desk.output[0] == ""
        assert "Traceback" not in desk.output[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--secret", "key=secret"], "names key twice"),
        (["--mount", "claim"], "write --mount NAME=FOLDER"),
        (["--mount", "claim=nowhere"], "nowhere is not a folder"),
        (["--trained-on", "candidate=model"], "train.parquet does not exist"),
        (["--gpus", "-1"], "--gpus can't be negative"),
        (["--output", "rows.jsonl"], "rows.jsonl is a file"),
        (["--output", "rows.jsonl/out"], "rows.jsonl/out can't be made (Not a directory)"),
    ],
)
def test_wrong_options_are_named(desk: Desk, arguments: list[str], message: str) -> None:
    assert desk.run(*arguments) == ExitCode.USER_ERROR
    assert message in desk.output[1]
    assert desk.config is None


def test_an_interrupted_run_says_how_to_go_on(desk: Desk) -> None:
    desk.document = KeyboardInterrupt()
    assert desk.run("--output", "out") == ExitCode.PREEMPTED
    assert desk.output[1] == "interrupted: run the command again with --output out to go on\n"


def test_a_secret_without_a_folder_is_named(desk: Desk) -> None:
    assert main(["run", "eval.yaml"]) == ExitCode.USER_ERROR
    assert "add --secret key=FOLDER" in desk.capture.readouterr().err


def test_a_refused_key_says_where_keys_are_on_a_computer(desk: Desk) -> None:
    desk.document = UserError("EndpointKeyRefused", "the judge wants a key (HTTP 401 )")
    assert desk.run() == ExitCode.USER_ERROR
    assert desk.output[1] == (
        "error: the judge wants a key (HTTP 401 ). On this computer a folder stands for a Secret: name it at the "
        "endpoint, such as secretRef: {name: key}, add --secret key=FOLDER, and write the key into FOLDER/token. Given "
        f"so far: --secret key={desk.folder}/secret\n"
    )
    desk.document = UserError("EndpointRefused", "the judge at http://judge rejects the request")
    desk.run()
    assert "--secret" not in desk.output[1]


def test_runs_are_counted_in_the_reports_that_are_kept(desk: Desk) -> None:
    mine = make_document()
    other_policy = mine.policy.model_copy(update={"digest": "sha256:" + "77" * 32})
    day = timedelta(days=1)
    for name, document in {
        "one": mine.model_copy(
            update={"run": mine.run.model_copy(update={"started": mine.run.started - day})}
        ),
        "copy": mine.model_copy(
            update={"run": mine.run.model_copy(update={"started": mine.run.started - day})}
        ),
        "two": mine.model_copy(
            update={"run": mine.run.model_copy(update={"started": mine.run.started - 2 * day})}
        ),
        "policy": mine.model_copy(update={"policy": other_policy}),
    }.items():
        write_report(desk.folder / "kept" / name, document)
    (desk.folder / "kept" / "data").mkdir()
    (desk.folder / "kept" / "data" / "report.json").write_text("{}")
    desk.document = mine.model_copy(update={"run": mine.run.model_copy(update={"runs": None})})
    desk.run("--output", "out")
    assert read_report(desk.folder / "out" / "report.json").run.runs is None
    for _ in range(2):
        desk.run("--output", "kept/new", "--earlier", "kept")
        assert read_report(desk.folder / "kept" / "new" / "report.json").run.runs == 3
    assert "Runs of this candidate and policy: 3" in (desk.folder / "kept" / "new" / "report.md").read_text()
    desk.document = mine.model_copy(
        update={"sides": (mine.sides[2], *mine.sides[1:]), "run": mine.run.model_copy(update={"runs": None})}
    )
    desk.run("--output", "out", "--earlier", "kept")
    assert read_report(desk.folder / "out" / "report.json").run.runs is None
    assert desk.run("--earlier", "nowhere") == ExitCode.USER_ERROR
    assert "--earlier nowhere is not a folder" in desk.output[1]


def test_the_use_of_the_model_reaches_the_stage_and_advice_is_printed(desk: Desk) -> None:
    advice = 'advice: {bar: "0.9", examples: 800, latencyBudgetSeconds: "2", trainingCost: "40"}'
    (desk.folder / "eval.yaml").write_text(f"{_MANIFEST}\n{advice}\n")
    desk.run()
    assert desk.config and desk.config.advice
    assert desk.config.advice == ModelUse(bar=0.9, examples=800, latency_budget=2.0, training_cost=40.0)
    assert "  Advice      The candidate closes 62 per cent" in desk.output[0]


def test_an_engine_that_only_a_cluster_has_is_refused(desk: Desk) -> None:
    (desk.folder / "eval.yaml").write_text(f"{_MANIFEST}\nengine: VLLM\n")
    assert desk.run() == ExitCode.USER_ERROR
    assert "write engine: Transformers" in desk.output[1]
    assert desk.config is None


def test_rows_that_a_side_was_trained_on_are_checked(desk: Desk) -> None:
    (desk.folder / "prepared").mkdir()
    (desk.folder / "prepared" / "train.parquet").write_bytes(b"rows")
    desk.run("--trained-on", "candidate=prepared")
    assert desk.config
    assert [(rows.side, rows.uri) for rows in desk.config.trained_rows] == [
        ("candidate", f"pvc://this-computer{desk.folder}/prepared/train.parquet")
    ]
    assert desk.run("--trained-on", "nobody=prepared") == ExitCode.USER_ERROR
    assert "no compared model has that name" in desk.output[1]


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["run"], ["run", "a", "--gpus", "x"], ["report"]])
def test_a_mistyped_command_line_is_not_inconclusive(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == ExitCode.USER_ERROR


def test_progress_is_drawn_in_a_terminal(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    desk.run()
    assert "100%" in terminal.getvalue()


def test_reports_are_rendered_again_and_listed(desk: Desk) -> None:
    write_report(desk.folder / "reports" / "one", make_document())
    write_report(desk.folder / "reports" / "two", make_small_document())
    (desk.folder / "reports" / "one" / "report.html").write_text("old")
    (desk.folder / "reports" / "data-report").mkdir()
    (desk.folder / "reports" / "data-report" / "report.json").write_text("{}")
    assert main(["report", "reports"]) == 0
    out, err = desk.capture.readouterr()
    assert out == "2 of 3 reports rendered\nreports/index.html\n"
    assert "left out: reports/data-report/report.json is not a report" in err
    assert (desk.folder / "reports" / "one" / "report.html").stat().st_size > 10_000
    assert "two/report.html" in (desk.folder / "reports" / "index.html").read_text()
    assert main(["report", "reports", "--alias", "nobody"]) == ExitCode.USER_ERROR
    assert "no report for alias nobody" in desk.capture.readouterr().err


def test_the_copies_of_a_report_are_listed_once(desk: Desk) -> None:
    """A folder of results holds its report twice; one of a cluster may be copied beside another."""
    desk.document = make_document()
    desk.run("--output", "reports/out")
    write_report(desk.folder / "reports" / "another", make_small_document())
    assert main(["report", "reports"]) == 0
    page = (desk.folder / "reports" / "index.html").read_text()
    assert 'href="out/report.html"' in page
    assert "sha256/" not in page


def test_a_gate_that_was_not_measured_says_so_once(desk: Desk) -> None:
    document = make_document()
    desk.document = document.model_copy(update={"results": ()})
    desk.run()
    assert "; not measured\n" in desk.output[0]
    assert "measured not measured" not in desk.output[0]
