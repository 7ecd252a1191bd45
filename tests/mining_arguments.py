"""Arguments of data.mine and data.hold_out by the names of their flags, the parameters of mining among them."""

import dataclasses
from typing import Any

from data.hold_out import HoldOutArguments
from data.mining.arguments import MineArguments
from data.mining.parameters import MiningParameters, ReformulationParameters


def mine_arguments(**flags: Any) -> MineArguments:
    parameters = _taken(flags, MiningParameters)
    return MineArguments(parameters=MiningParameters(**parameters), **flags)


def hold_out_arguments(**flags: Any) -> HoldOutArguments:
    parameters = _taken(flags, ReformulationParameters)
    return HoldOutArguments(parameters=ReformulationParameters(**parameters), **flags)


def _taken(flags: dict[str, Any], kind: type) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: flags.pop(name) for name in names & flags.keys()}
