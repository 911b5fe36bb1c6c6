# SPDX-License-Identifier: Apache-2.0
"""Prints zone_reference.h: offsets and local times as Python's zoneinfo has them, around the clock changes of chosen
years and in between. Run: python3 make_zone_reference.py > zone_reference.h"""

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

ZONES = ["Europe/Berlin", "America/New_York", "Europe/Dublin", "Australia/Lord_Howe", "America/Sao_Paulo",
         "Asia/Kolkata", "Pacific/Apia", "America/Santiago", "Asia/Kathmandu", "Pacific/Chatham", "Etc/GMT+5"]
YEARS = [2006, 2022, 2050, 2100]  # the last two lie beyond the transitions that the files list
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def offset(zone, unix_s):
    return int((EPOCH + timedelta(seconds=unix_s)).astimezone(ZoneInfo(zone)).utcoffset().total_seconds())


def changes(zone, year):
    """First seconds with a new offset in the year."""
    unix_s = int((datetime(year, 1, 1, tzinfo=timezone.utc) - EPOCH).total_seconds())
    for day in range(365):
        low, high = unix_s + day * 86400, unix_s + (day + 1) * 86400
        if offset(zone, low) != offset(zone, high):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(zone, middle) == offset(zone, low) else (low, middle)
            yield high


def local_to_unix(zone, local_s):
    local = (EPOCH.replace(tzinfo=None) + timedelta(seconds=local_s)).replace(tzinfo=ZoneInfo(zone))
    return int((local.astimezone(timezone.utc) - EPOCH).total_seconds())


offsets, locals_ = [], []
for zone in ZONES:
    offsets += [(zone, t, offset(zone, t)) for t in (-2500000000, 0, 1000000000, 1700000000)]
    for change in (c for year in YEARS for c in changes(zone, year)):
        before, after = offset(zone, change - 1), offset(zone, change)
        offsets += [(zone, change - 1, before), (zone, change, after)]
        middle = change + (before + after) // 2  # inside the hour that is skipped or comes twice
        locals_ += [(zone, t, local_to_unix(zone, t)) for t in (middle - 3600, middle, middle + 3600)]

print("// SPDX-License-Identifier: Apache-2.0\n// Written by make_zone_reference.py.")
for name, rows in (("offsets", offsets), ("locals", locals_)):
    print(f"static const struct reference {name}[] = {{")
    for row in rows:
        print('    {"%s", %d, %d},' % row)
    print("};")
