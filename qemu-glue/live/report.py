# SPDX-License-Identifier: GPL-2.0-or-later
"""What the comparison found: medians, a table, a picture, and whether godwit keeps its promises."""

import html
from statistics import median

COLUMNS = (
    ("total", 8, "total_s", "{:.2f} s"), ("downtime", 9, "downtime_ms", "{:.0f} ms"),
    ("wire", 8, "wire_mb", "{:.0f} MB"), ("src CPU", 8, "source_cpu_s", "{:.2f} s"),
    ("with vCPU", 9, "source_cpu_all_s", "{:.2f} s"), ("dst CPU", 8, "destination_cpu_s", "{:.2f} s"),
    ("dst main", 8, "destination_main_share", "{:.0%}"), ("gap", 7, "gap_ms", "{:.0f} ms"),
    ("RSS grew", 8, "source_rss_grown_mb", "{:.0f} MB"),
)
MEASURED = tuple(column[2] for column in COLUMNS)


def summary(runs):
    """One row of the runs of a mode in a cell: the medians of those that ended like most did."""
    statuses = [run["status"] for run in runs]
    status = max(sorted(set(statuses)), key=statuses.count)
    alike = [run for run in runs if run["status"] == status]
    row = {"status": status, "runs": len(runs), "guest": "right"}
    if statuses.count(status) < len(runs):
        row["status"] = f"{status} {statuses.count(status)}/{len(runs)}"
    for key in MEASURED:
        values = [run[key] for run in alike if run.get(key) is not None]
        row[key] = median(values) if values else None
        if values:
            row[f"{key}_range"] = [min(values), max(values)]
    for run in runs:
        if run["guest"] != "right":
            row["guest"] = run["guest"].split(":")[0]
    return row


def table(cells):
    """Text; cells is {cell: {mode: row}}."""
    lines = []
    for cell, rows in cells.items():
        lines.append("")
        lines.append(f"{cell:14} {'status':16}" + "".join(f"{title:>{width + 2}}" for title, width, _, _ in COLUMNS)
                     + "  guest")
        for mode, row in rows.items():
            text = f"  {mode:12} {row['status']:16}"
            for _, width, key, form in COLUMNS:
                value = row.get(key)
                text += f"{'-' if value is None else form.format(value):>{width + 2}}"
            lines.append(f"{text}  {row['guest']}")
    return "\n".join(lines[1:])


def finished(row):
    return row is not None and row["status"].startswith("completed")


def judge(cells):
    """[(passed, sentence)] of what must hold; passed is None for what was not measured."""
    verdicts = []

    def say(passed, sentence):
        verdicts.append((passed, sentence))

    for cell, rows in cells.items():
        godwit = rows.get("godwit")
        stock = {mode: row for mode, row in rows.items() if mode != "godwit" and finished(row)}
        if godwit is None:
            continue
        guest, _, rate = cell.partition("@")
        say(godwit["guest"] == "right", f"{cell}: the guest has every page right and goes on")
        if not finished(godwit):
            say(not stock, f"{cell}: godwit {godwit['status']}; stock modes that finish: {', '.join(stock) or 'none'}")
            continue
        total = godwit["total_s"]
        slack = lambda seconds: seconds + max(0.05 * seconds, 0.15)
        best = min(stock, key=lambda mode: stock[mode]["total_s"], default=None)

        def within(limit, of, words):
            say(total <= limit, f"{cell}: total {total:.2f} s, {words} {limit:.2f} s "
                f"({total / of:.2f} of it)" if of else f"{cell}: total {total:.2f} s")

        if cell == "sparse@100MB/s" and "xbzrle" in stock:
            within(stock["xbzrle"]["total_s"] / 3, stock["xbzrle"]["total_s"], "a third of xbzrle's is")
            cache = stock["xbzrle"]["source_rss_grown_mb"] or 0
            say(godwit["source_rss_grown_mb"] <= 0.3 * cache,
                f"{cell}: memory grew by {godwit['source_rss_grown_mb']:.0f} MB, 30 % of xbzrle's is {0.3 * cache:.0f} MB")
        elif cell == "sparse@uncapped" and "multifd none" in stock:
            none = stock["multifd none"]["total_s"]
            within(slack(none), none, "multifd none's and the larger of 5 % and 150 ms is")
        elif cell == "dense@125MB/s" and best:
            within(0.8 * stock[best]["total_s"], stock[best]["total_s"], f"0.8 of the best stock mode ({best}) is")
        elif best:
            limit = slack(stock[best]["total_s"])
            if guest == "random" and rate in ("10Gbit/s", "uncapped"):
                limit += 0.25 * stock[best]["total_s"]
            within(limit, stock[best]["total_s"], f"best stock ({best}) with its allowance is")
        zstd = rows.get("multifd zstd")
        if zstd and zstd["source_cpu_s"] is not None:
            quicker = not finished(zstd) or total <= 0.9 * zstd["total_s"]
            say(quicker or godwit["source_cpu_s"] <= zstd["source_cpu_s"],
                f"{cell}: source CPU {godwit['source_cpu_s']:.2f} s, multifd zstd's {zstd['source_cpu_s']:.2f} s"
                + (" (total time is 10 % better)" if quicker else ""))
        share = godwit["destination_main_share"]
        say(share < 0.4, f"{cell}: destination's main thread {share:.0%} of a core, below 40 %")
        say(godwit["downtime_ms"] <= 300, f"{cell}: downtime {godwit['downtime_ms']:.0f} ms of 300")
    return verdicts


STYLE = """<style>
svg { font: 13px system-ui, sans-serif; }
text { fill: #1f2328; } .soft { fill: #656d76; } .title { font-weight: 600; }
.big { font-size: 15px; font-weight: 600; } .paper { fill: #ffffff; } .rule { stroke: #d0d7de; }
.bar { fill: #8c959f; } .bar.godwit { fill: #0969da; } .bar.cut { opacity: 0.35; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .soft { fill: #8d96a0; } .paper { fill: #0d1117; } .rule { stroke: #373e47; }
  .bar { fill: #6e7681; } .bar.godwit { fill: #58a6ff; }
}
</style>"""
WIDTH, LEFT, RIGHT, BAR = 960, 130, 300, 22


def svg(cells, title):
    """A bar for each mode's total time, a group for each cell, each with an axis of its own."""
    height = 70 + sum(54 + BAR * len(rows) for rows in cells.values())
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">', STYLE,
           f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
           f'<text class="big" x="24" y="32">{html.escape(title)}</text>',
           '<text class="soft" x="24" y="52">total time, shorter is better; pale: not finished when cut off</text>']
    y = 78
    for cell, rows in cells.items():
        most = max((row["total_s"] or 0 for row in rows.values()), default=0) or 1
        out.append(f'<text class="title" x="24" y="{y + 12}">{html.escape(cell)}</text>')
        y += 22
        for mode, row in rows.items():
            total = row["total_s"] or 0
            width = total / most * (WIDTH - LEFT - RIGHT)
            kind = ("bar godwit" if mode == "godwit" else "bar") + ("" if finished(row) else " cut")
            words = f"{total:.2f} s" + ("" if finished(row) else f", {row['status']}")
            for key, form in (("downtime_ms", "{:.0f} ms down"), ("wire_mb", "{:.0f} MB")):
                if row.get(key) is not None:
                    words += ", " + form.format(row[key])
            if row["guest"] != "right":
                words += f", guest {row['guest']}"
            out.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{html.escape(mode)}</text>')
            out.append(f'<rect class="{kind}" x="{LEFT}" y="{y + 2}" width="{width:.1f}" height="{BAR - 6}" rx="2"/>')
            out.append(f'<text class="soft" x="{LEFT + width + 8:.1f}" y="{y + 14}">{html.escape(words)}</text>')
            y += BAR
        out.append(f'<line class="rule" x1="{LEFT}" x2="{LEFT}" y1="{y - BAR * len(rows)}" y2="{y}"/>')
        y += 32
    out.append("</svg>")
    return "\n".join(out) + "\n"
