"""Labels from gradients: found where they are sent in clear, and not in what a partner of ours is shown."""

import numpy as np
import pytest

from fedmkt.attack_lab.attacks import gradients
from fedmkt.attack_lab.controls import sigmoid
from fedmkt.attack_lab.effort import quick
from fedmkt.attack_lab.subject import Subject
from fedmkt.simulation.compare import load_side
from tests.attack_lab.planted import shown

ATTACKS = (gradients.norm_and_cosine, gradients.sign, gradients.residues)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("family", ["linear", "totals", "sides"])
def test_an_attack_on_labels_works_undefended_and_not_here(attack, family, request):
    found = attack(request.getfixturevalue(family), quick(1))
    assert found.verdict == "held"
    assert not found.limit.is_kept(found.undefended)


def test_views_hold_what_each_party_was_shown(linear: Subject):
    for party in ("bank", "partner", "coordinator"):
        assert len(linear.views.of(party)) > 20
    arrays = [a for _, a in linear.views.received("partner")]
    assert sum(linear.by_row(a) is not None for a in arrays) > 10
    assert any(where.startswith("sum of") for where, _ in linear.views.received("partner"))


def test_gradients_of_rows_that_the_partner_is_sent_are_found(linear: Subject):
    places = np.zeros(len(linear.slots))
    places[linear.slots >= 0] = 0.3 - linear.labels
    told = shown(linear, "partner", np.outer(places, [0.5, -1.0]))
    assert gradients.norm_and_cosine(told, quick(1)).verdict == "BROKEN"
    assert gradients.sign(told, quick(1)).here == len(linear.labels)


def test_a_mask_that_served_twice_is_found(linear: Subject):
    places = np.zeros(len(linear.slots), np.uint64)
    places[linear.slots >= 0] = np.uint64(7) * linear.labels.astype(np.uint64)
    mask = np.random.default_rng(5).integers(0, 1 << 63, len(places), np.uint64)
    twice = shown(shown(linear, "partner", mask), "partner", mask + places)
    assert gradients.norm_and_cosine(twice, quick(1)).verdict == "BROKEN"
    assert gradients.norm_and_cosine(shown(linear, "partner", mask + places), quick(1)).verdict == "held"


@pytest.mark.parametrize(("kind", "order"), [(np.uint8, "big"), (np.uint32, "little")])
def test_labels_in_packed_bits_are_found(kind, order, linear: Subject):
    places = np.zeros(-(-len(linear.slots) // 32) * 32, np.bool_)
    places[: len(linear.slots)][linear.slots >= 0] = linear.labels == 1
    packed = np.packbits(places, bitorder=order).view(kind)[None]
    assert gradients.sign(shown(linear, "partner", packed), quick(1)).here == len(linear.labels)


def test_the_coordinators_view_is_attacked_like_a_partners(linear: Subject):
    places = np.zeros(len(linear.slots))
    places[linear.slots >= 0] = linear.labels
    found = gradients.norm_and_cosine(shown(linear, "coordinator", places), quick(1))
    assert found.verdict == "BROKEN" and "coordinator 1.000" in found.note


def test_a_gradient_of_own_columns_that_the_partner_is_sent_is_found(linear: Subject):
    side = load_side(linear.model("partner"), linear.tables["partner"])
    residual = sigmoid(np.zeros(len(linear.labels))) - linear.labels
    own = (side.train @ side.transform).T @ residual
    found = gradients.residues(shown(linear, "partner", own * 3.7), quick(1))
    assert (found.here, found.verdict) == (1, "BROKEN")
