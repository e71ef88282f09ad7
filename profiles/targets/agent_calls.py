"""What every target that runs the agent asks of it in the same words."""

from __future__ import annotations

import time

import numpy as np

from edgelstm.errors import EdgeLstmError
from edgelstm.profiles import agent
from edgelstm.profiles.devices import Device
from edgelstm.profiles.targets import DeviceFacts, DeviceState, Overhead, Session

_OVERHEAD_RUNS = 2000
_ROUND_TRIPS = 20


def ask_facts(session: Session, device: Device, time_limit_s: float) -> DeviceFacts:
    """`hello`, with the protocol's version checked."""
    answer = session.ask("hello", time_limit_s=time_limit_s)
    if answer["protocol"] != agent.PROTOCOL:
        raise EdgeLstmError(
            f"the agent on the device speaks protocol {answer['protocol']}, not {agent.PROTOCOL}",
            where=device.name,
            cure="remove the old agent from the device",
        )
    return DeviceFacts(
        name=device.name,
        target=device.target,
        system=answer["system"],
        release=answer["release"],
        machine=answer["machine"],
        processor_name=answer["processor_name"],
        processors=answer["processors"],
        python=answer["python"],
        numpy=answer["numpy"],
        backends=answer["backends"],
        pointer_bits=answer["pointer_bits"],
        libc=tuple(answer["libc"]),
        features=tuple(answer["features"]),
        layout=answer.get("layout"),
    )


def ask_state(session: Session, device: Device, time_limit_s: float) -> DeviceState:
    """`state`, with the files that the device profile names."""
    answer = session.ask(
        "state",
        time_limit_s=time_limit_s,
        governors=list(device.governors),
        frequencies=list(device.frequencies),
        temperatures=list(device.temperatures),
        batteries=list(device.batteries),
        energies=list(device.energies),
    )
    return DeviceState(
        load=None if answer["load"] is None else tuple(answer["load"]),
        busy_s=answer["busy_s"],
        clock_s=answer["clock_s"],
        governors=answer["governors"],
        frequencies=answer["frequencies"],
        temperatures=answer["temperatures"],
        batteries=answer["batteries"],
        energies=answer["energies"],
    )


def ask_overhead(session: Session, time_limit_s: float) -> Overhead:
    """`overhead` for the clock, and the round trip seen from here."""
    answer = session.ask("overhead", time_limit_s=time_limit_s, runs=_OVERHEAD_RUNS)
    trips = []
    for _ in range(_ROUND_TRIPS):
        started = time.perf_counter()
        session.ask("overhead", time_limit_s=time_limit_s, runs=0)
        trips.append(time.perf_counter() - started)
    return Overhead(float(np.median(answer["samples_ns"])), float(np.median(trips)))
