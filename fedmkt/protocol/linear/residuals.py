"""From the last opening of a link to residuals: values of all rows, less their labels.

Computes shares of value - label at the scale that `layout.value_bits` says. Takes part: all parties that hold data.
Nobody learns anything: no message is sent here; the bank alone subtracts, from its own share.
"""

from fedmkt.protocol.core import Inbox, Message, Turn, Words
from fedmkt.protocol.layout import FIT, value_bits
from fedmkt.protocol.linear.identity import finish_identity
from fedmkt.protocol.linear.links import is_identity
from fedmkt.protocol.linear.sigmoid_blocks import finish_lift
from fedmkt.protocol.linear.targets import Labels
from fedmkt.ring.fixed import encode


def finish_values(turn: Turn, inbox: Inbox[Message]) -> Words:
    """Return the own share of value less label for all training rows, (n,)."""
    contract = turn.contract
    values = finish_identity(turn, inbox) if is_identity(contract) else finish_lift(turn, inbox, FIT).done
    if turn.first and contract.model.link != "logistic":
        # Labels of the logistic link leave modulo 2^32, before the lift: then what is lifted is the smaller number.
        values = values - encode(turn.recall(Labels).y, value_bits(contract, FIT))
    return values
