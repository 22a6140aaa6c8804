"""Writes dates.tsv: dates, and the second Python's email.utils reads them as ("-": none).

    python3 tests/data/dates.py > tests/data/dates.tsv

The old server read dates this way. Dates that it guessed at and we refuse are not in here; they
are listed in the unit tests of actors/src/filetracker/dates.rs.
"""

import datetime
import random
from email.utils import mktime_tz, parsedate_tz

MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
LONG = "January February March April May June July August September October November December".split()
DAYS = "Mon Tue Wed Thu Fri Sat Sun".split()
LONG_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
ZONES = ["", "-0000", "+0000", "+0200", "-0330", "0200", "+1400", "-1200", "+9999", "200", "-5", "GMT", "UT", "UTC",
         "Z", "z", "gmt", "EST", "edt", "CST", "CDT", "MST", "MDT", "PST", "pdt", "AST", "ADT", "CET", "Europe/Warsaw"]
BY_HAND = """
Tue, 14 Nov 2023 22:13:20 -0000
Tue,14 Nov 2023 22:13:20 -0000
Tue 14 Nov 2023 22:13:20 -0000
tUESDAY, 14 nOV 2023 22:13:20 gMt
14 Nov 2023 22:13:20
14 Nov 2023 22:13
14 Nov 2023 22:13+0200
14 Nov 2023 22:13:20-0200
14 Nov 23 22:13:20 GMT
14 Nov 69 22:13:20 GMT
14 Nov 68 22:13:20 GMT
14 Nov 100 22:13:20 GMT
14 Nov 0099 22:13:20 GMT
14 November 2023 22:13:20 GMT
Nov 14, 2023 22:13:20 GMT
Nov 14 2023 22:13:20
Tue Nov 14 22:13:20 2023
Tue Nov 14 22:13:20 2023 +0100
Tue Nov 14 22:13:20 UTC 2023
Tue Nov 14 22:13:20 CET 2023
Tue Nov  4 22:13:20 2023
Tuesday, 14-Nov-23 22:13:20 GMT
Tuesday, 14-Nov-2023 22:13:20 GMT
14-Nov-23 22:13:20 EST
14 Nov 2023 22.13.20 GMT
14 Nov 2023 22.13 GMT
Tue, 14 Nov 2023 22:13:20, -0000
14 Nov 2023, 22:13:20 -0000
Tue, 14 Nov 2023 22:13:20 +0200 (CEST)
Tue, 14 Nov 2023 22:13:20 -0000 (a comment of words)
31 Feb 2023 00:00:00 GMT
0 Mar 2023 00:00:00 GMT
99 Jan 2023 00:00:00 GMT
14 Nov 2023 24:00:00 GMT
14 Nov 2023 99:99:99 GMT
31 Dec 2016 23:59:60 GMT
Thu, 01 Jan 1970 00:00:00 -0000
Wed, 31 Dec 1969 23:59:59 -0000
Fri, 31 Dec 9999 23:59:59 -0000
01 Jan 1900 00:00:00 -0000
29 Feb 2000 12:00:00 GMT
29 Feb 1900 12:00:00 GMT
  Tue,  14   Nov 2023  22:13:20  -0000  
2023-11-14
2023-11-14T22:13:20
2023-11-14T22:13:20Z
2023-11-14 22:13:20
2023-11-14 22:13:20+00:00
20231114T221320Z
1700000000
1700000000.5
1700000000 0
0
-1
Tue, 14 Nov 2023 22:13:20.5 -0000
Tue, 14 Nov 2023 22:13:20,5 -0000
14 Nov 2023
Nov 2023
14 11 2023 22:13:20 GMT
14/11/2023 22:13:20
11/14/2023 22:13:20 GMT
Tue, 14 Foo 2023 22:13:20 -0000
Tue, 14 Nov 2023 -0000
Tue, 14 Nov 2023 22 -0000
Tue, 14 Nov 2023 22:13:20:00 -0000
Tue, 14 Nov 2023 aa:bb:cc -0000
Tue, xx Nov 2023 22:13:20 -0000
Tue, 14 Nov yyyy 22:13:20 GMT
Tue, 14 Nov 2023 :13:20 -0000
Tue, 14 Nov 2023 22::20 -0000
Tue, 14 Nov 2023 22:13: -0000
Tue,
Tue
,
,,
-
--
14--23 22:13:20 GMT
-Nov-23 22:13:20 GMT
14-Nov- 22:13:20 GMT
, Nov 2023 22:13:20 GMT
now
yesterday
null
None
NaN
junk junk junk junk junk
a b c d e f g
Nov Nov Nov Nov Nov
14 14 14 14 14
: : : : :
Tuesday 14 Nov 2023 22:13:20 GMT
""".strip("\n").split("\n")


def reading(text):
    parsed = parsedate_tz(text)
    if parsed is None:
        return "-"
    try:
        return str(mktime_tz(parsed))
    except (ValueError, OverflowError):
        return "-"


def generated(random):
    for _ in range(400):
        year = random.choice([random.randint(1970, 2100), random.randint(100, 9998), random.randint(2015, 2030)])
        when = datetime.datetime(year, random.randint(1, 12), random.randint(1, 28), random.randint(0, 23),
                                 random.randint(0, 59), random.randint(0, 59))
        month = random.choice([MONTHS, MONTHS, LONG])[when.month - 1]
        zone = random.choice(ZONES)
        time = random.choice([f"{when:%H:%M:%S}", f"{when:%H:%M:%S}", f"{when:%H:%M}", f"{when.hour}:{when.minute}"])
        day = random.choice([f"{when.day:02}", f"{when.day}", f"{random.randint(0, 40)}"])
        text = random.choice([
            f"{DAYS[when.weekday()]}, {day} {month} {year} {time} {zone}",
            f"{DAYS[when.weekday()]}, {day} {month} {year} {time} {zone}",
            f"{day} {month} {year} {time} {zone}",
            f"{DAYS[when.weekday()]} {month} {day} {time} {year} {zone}",
            f"{LONG_DAYS[when.weekday()]}, {day}-{MONTHS[when.month - 1]}-{year % 100:02} {time} {zone or 'GMT'}",
        ]).rstrip()
        yield random.choice([text, text, text.lower(), text.upper()])


def main():
    print("# Written by tests/data/dates.py. Second since 1970 (- for none), tab, date.")
    for text in BY_HAND + sorted(set(generated(random.Random(2023)))):
        print(f"{reading(text)}\t{text}")


main()
