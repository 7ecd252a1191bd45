"""The Python code of docs/python.md runs, from top to bottom, with a tiny encoder as FOLDER."""

from tests.docs.markdown import ROOT, read
from tests.model_folders import add_modules, write_bert


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    page = "docs/python.md"
    monkeypatch.chdir(tmp_path)
    add_modules(write_bert(tmp_path / "FOLDER"))
    blocks = [text for language, text in read(ROOT / page).blocks if language == "python"]
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    assert names["scores"].shape == names["indices"].shape


def test_the_page_shows_every_public_name():
    text = "\n".join(block for _, block in read(ROOT / "docs" / "python.md").blocks)
    public = ("Level", "SparseLabels", "h_infonce", "write_records", "RecordSource", "exact_top_k", "load_encoder")
    metrics = ("recall_at_k", "ndcg_at_k", "mrr_at_k", "average_precision")
    assert [name for name in (*public, *metrics) if name not in text] == []
