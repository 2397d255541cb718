"""What there is to see, gathered: the master's inspection, rates, and depths."""

from __future__ import annotations

import time
from collections.abc import Sequence

from domain_events.registration import Registration
from domain_events.supervisor.protocol import Inspect
from domain_events.web.asking import Master
from domain_events.web.depths import Depths, delays_of
from domain_events.web.rates import Rates
from domain_events.web.views import Overview, ReceiverView, overview

_DEPTHS_EVERY = 3.0  # seconds


class Watching:
    """For all who look."""

    def __init__(self, master: Master, depths: Depths, registrations: Sequence[Registration]) -> None:
        self._master = master
        self._depths = depths
        self._rates = Rates()
        self._setting_aside = {each.name for each in registrations if each.dead_letter}

    async def overview(self, receiver: str = "", *, patience: float = 0.0) -> Overview:
        """With the stacks of `receiver`. `patience`: seconds to wait for depths.

        Raises MasterSilent, MasterGone.
        """
        inspection = await self._master.look(Inspect(receiver))
        self._rates.note(time.monotonic(), inspection)
        depths = await self._depths.look(delays_of(inspection), max_age=_DEPTHS_EVERY, patience=patience)
        return overview(
            inspection, self._rates.of, depths, setting_aside=self._setting_aside.__contains__, now=time.time()
        )

    async def receiver(self, name: str, *, patience: float = 0.0) -> ReceiverView | None:
        """None: there is none of this name. Raises MasterSilent, MasterGone."""
        view = await self.overview(name, patience=patience)
        return next((each for each in view.receivers if each.name == name), None)
