"""Figures of teams, for as many as the operator lets be a label. All others are counted together, as ``other``."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.domain.billing.settlement import Settlement
from proxy.domain.limits import QUOTAS, QuotaUsage
from proxy.telemetry.tallies import Labels, Tally

OTHER = "other"


class TeamMetrics:
    """What was charged to each team by this process, and what the store says of its quota.

    Several gateways on one store report the same quota: take the greatest of them, not the sum.
    """

    def __init__(self, charged: Tally, images: Tally, quota: Tally, *, label_teams: int) -> None:
        """Keep the figures in these: ``team,model``, ``team,model`` and ``team,limit,state`` are their labels."""
        self._charged = charged
        self._images = images
        self._quota = quota
        self._labelled: frozenset[str] = frozenset()
        self.label_teams = label_teams

    def settled(self, settlement: Settlement) -> None:
        """A request has ended."""
        team = settlement.reservation.team
        labels = (team if team in self._labelled else OTHER, settlement.reservation.model)
        self._charged.values[labels] += settlement.charged_units
        self._images.values[labels] += settlement.delivery.images

    def show(self, teams: Mapping[str, Mapping[str, QuotaUsage]]) -> None:
        """These teams, with their quotas by name, are the labels from now on; the first ``label_teams`` of them.

        What was counted of a team that is no label any more is forgotten, so that there are never more.
        """
        shown = sorted(teams)[: self.label_teams]
        self._labelled = frozenset(shown)
        self._quota.values.clear()
        for team in shown:
            for labels, units in _samples(team, teams[team]):
                self._quota.values[labels] = units
        for tally in (self._charged, self._images):
            for labels in [labels for labels in tally.values if labels[0] not in self._labelled | {OTHER}]:
                del tally.values[labels]


def _samples(team: str, quotas: Mapping[str, QuotaUsage]) -> list[tuple[Labels, int]]:
    """One team's samples; ``limit`` is there only where there is one."""
    samples: list[tuple[Labels, int]] = []
    for name in QUOTAS:
        quota = quotas[name]
        samples += [((team, name, "posted"), quota.posted), ((team, name, "reserved"), quota.reserved)]
        if quota.limit is not None:
            samples.append(((team, name, "limit"), quota.limit))
    return samples
