from dataclasses import asdict
from xml.etree import ElementTree

import numpy as np
import pytest

from fedllm_data.heterogeneity import AXES, measure_axes, profile_rows
from fedllm_data.reporting.draw_figures import draw_figures
from fedllm_data.reporting.similarity import similarity_map
from fedllm_data.reporting.style import drawable


def _profiles(num_clients: int, num_languages: int = 3) -> list:
    rng = np.random.default_rng(0)
    profiles = []
    for index in range(num_clients):
        num_rows = int(rng.integers(2, 40))
        columns = {
            "language": [f"l{code:02d}" for code in rng.integers(0, num_languages, num_rows)],
            "instruction_tokens": rng.integers(0, 100, num_rows),
            "response_tokens": rng.integers(1, 5000, num_rows),
        }
        profiles.append(profile_rows(f"client-{index:04d}", columns, codebook="words"))
    return profiles


def _draw(profiles: list) -> dict:
    """Figures of these profiles, with a report that holds what figures need of one."""
    results = measure_axes(profiles, num_null=9, num_bootstrap=9)
    columns = {"client_id": [profile.client_id for profile in profiles]}
    axes = {}
    for name, result in results.items():
        columns |= {key: values for key, values in result.per_client.items() if len(values) == len(profiles)}
        measures = {
            key: {"title": measure.title, "unequal": measure.unequal, **asdict(result.estimates[key])}
            for key, measure in AXES[name].measures.items()
        }
        about = {"verdict": result.verdict, "headline": AXES[name].headline, "facts": result.facts}
        axes[name] = about | {"measures": measures, "client_columns": list(result.per_client)}
    document = {"axes": axes, "clients": columns}
    return draw_figures(document, similarity_map(document), profiles)


@pytest.mark.parametrize(("num_clients", "num_languages"), [(2, 2), (3, 40), (700, 5)])
def test_figures_are_sound_svg_for_few_and_many_clients_and_languages(num_clients, num_languages):
    figures = _draw(_profiles(num_clients, num_languages))
    assert {"overview", "quantity", "language", "length"} <= set(figures)
    assert ("similarity" in figures) == (num_clients > 2)
    for figure in figures.values():
        root = ElementTree.fromstring(figure)
        assert root.tag.endswith("svg")
        assert float(root.get("width").removesuffix("pt")) > 450
        assert len(figure) < 400_000


def test_figures_show_no_client_id_and_repeat_to_the_byte():
    profiles = _profiles(12)
    figures = _draw(profiles)
    assert figures == _draw(profiles)
    assert not any("client-0" in figure for figure in figures.values())


def test_ids_of_one_figure_are_not_those_of_another():
    ids = [
        element.get("id")
        for figure in _draw(_profiles(12)).values()
        for element in ElementTree.fromstring(figure).iter()
        if element.get("id")
    ]
    assert len(ids) == len(set(ids))


def test_an_axis_without_enough_data_has_no_figure():
    assert _draw(_profiles(1)) == {}
    assert "language" not in _draw(_profiles(5, num_languages=1))


def test_an_axis_without_a_plot_of_its_own_is_drawn_from_the_report(make_document, make_axis):
    # A label without glyphs, one that looks like mathematics, and a column that some clients lack.
    columns = {"word": ["\u65e5\u672c $x^2$", None, "b", "b"], "share": [0.5, None, 0.1, 0.2]}
    for name in columns:
        document = make_document(4, {"topics": make_axis(client_columns=[name])}, columns)
        svg = draw_figures(document, None)["topics"]
        assert "distance from chance, in its standard deviations" in svg
        assert ("\\u65e5\\u672c $x^2$" in svg) == (name == "word")


def test_text_the_font_cannot_draw_is_written_out():
    assert drawable("\u202eabc") == "\\u202eabc"
