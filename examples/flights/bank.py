"""The same project with one more feature, which looks excellent offline and must never reach production.

The delay of the whole bank of departures is stamped with the hour for which they were scheduled, not with
the moment at which each delay was known. Training therefore sees the future; serving cannot.
"""

import dataclasses

import flights

import holdtrue as ht

project = flights.project

bank_departures = ht.Trailing(
    name="bank_departures",
    source="departures",
    entity="carrier",
    time="scheduled_hour",
    column="departure_delay",
    aggregates=("mean",),
    window="1h",
)
project.models["delay"] = dataclasses.replace(flights.delay, features=(*flights.delay.features, bank_departures))
