"""The results as tables: for the terminal, and for docs/protocols.md."""

from itertools import groupby


def rows(results):
    """One row a request: its first photo's bytes, and how many photos were answered alike."""
    for (peer, request), group in groupby(results, lambda result: (result.peer, result.request)):
        group = list(group)
        yield peer, request, group[0], f"{sum(one.good for one in group)} of {len(group)}"


def plain(results):
    lines = [("server", "request", "way in", "photo", "body", "on the link", "", "same answer")]
    for peer, request, first, good in rows(results):
        share = f"{100 * first.sent / max(first.body, 1):.1f} %"
        numbers = (str(first.body), str(first.sent), share)
        lines.append((peer.folder, request.what, request.way, first.photo, *numbers, good))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    right = (4, 5, 6)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def markdown(results):
    lines = [
        "| shape | request | what is cut out | body | on the link | share | same answer | client | server | way in |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for peer, request, first, good in rows(results):
        share = f"{100 * first.sent / max(first.body, 1):.1f} %"
        tried = (request.by or peer.client, peer.server, request.way)
        cells = (f"`{request.preset}`", request.what, request.cut_out, first.body, first.sent, share, good, *tried)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
