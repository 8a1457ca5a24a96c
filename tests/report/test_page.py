import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ctflow_fed.report import render_page, write_page
from ctflow_fed.report.page import duration

VOID = {"meta", "img", "br", "link", "input", "circle", "line", "polyline", "rect"}


class Reader(HTMLParser):
    """Keeps what the page refers to, and refuses tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.references, self.words = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.references += [v for k, v in attributes if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def page(account):
    return render_page(account)


def words_of(page):
    return " ".join(" ".join(Reader(page).words).split())


def test_every_tag_that_is_opened_is_closed(page):
    assert Reader(page).open == []


def test_the_page_needs_no_other_file_and_no_network(page):
    assert all(each.startswith("data:image/png") for each in Reader(page).references)
    assert not re.search(r"https?://|@import|url\(|<script", page)


def test_the_numbers_of_the_run_are_on_the_page(page):
    words = words_of(page)

    for said in (
        "Two hospitals taught one",
        "0.900 → 0.400",
        "0.700 → 0.720",
        "2 min 00 s",
        "3210 MB",
        "sent and received 40 MB in training",
        "loss of the global model on the sites' studies",
        "ctflow demo --out runs/demo --seed 3",
        "Training began with random weights",
        "within the noise",
    ):
        assert said in words


def test_a_base_model_is_named(account):
    begun = replace(account.synthetic, parent="cd" * 32)

    words = words_of(render_page(replace(account, synthetic=begun)))

    assert "base model cdcdcdcdcdcd" in words
    assert "need not come from the federation" in words
    assert "random weights" not in words


def test_a_report_is_text_and_never_markup(page):
    assert "No &lt;b&gt;nodule&lt;/b&gt; &amp; more." in page
    assert "<b>nodule" not in page


def test_no_text_of_a_report_is_there_twice(account):
    pair = account.pairs[0]
    line = replace(pair.synthetic, report="Effusion here. Effusion there.")
    shown = replace(account, pairs=(replace(pair, synthetic=line),))

    words = words_of(render_page(shown))

    for said in ("Effusion on the left.", "Effusion here. Effusion there."):
        assert words.count(said) == 1


def test_each_finding_has_its_training_items_in_every_arm(page):
    row = re.search(r"<tr><th>Medical material</th>(<td class=\"n\">.*)</tr>", page)

    numbers = re.findall(r">([\d.]+)<", row[1])
    assert numbers == ["12", "611", "622", "633", "0.700", "0.710", "0.720"]


def test_a_resumed_run_has_times_of_finished_stages_only(account, page):
    said = "the times of finished stages only"

    assert said in words_of(render_page(replace(account, resumed=True)))
    assert said not in words_of(page)


def test_a_loss_that_rose_is_not_said_to_have_fallen(account):
    worse = replace(account.rounds[-1], loss_after=1.2)

    words = words_of(render_page(replace(account, rounds=(account.rounds[0], worse))))

    assert "It went from 0.900 to 1.200" in words


def test_the_page_says_what_it_does_not_prove(page):
    words = words_of(page)

    assert "All data here are phantoms" in words
    assert "that synthetic CT helps with patients" in words
    assert "NOT FOR DIAGNOSTIC USE" in words


def test_the_written_page_is_the_rendered_one(account, page, tmp_path):
    write_page(tmp_path / "new" / "report.html", account)

    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (61.0, "1 min 01 s")]
)
def test_times_are_written_as_people_say_them(seconds, said):
    assert duration(seconds) == said
