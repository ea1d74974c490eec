"""What a client is told of a cluster: all that has to be the same when a later program opens its directories."""
import os

from cluster import tree_sha256


def told(cluster, back):
    """Reads everything back into `back`."""
    cluster.run("get", "home:/", back)
    entries = cluster.lines("ls", "-lR", "home:/")
    return {
        "files": tree_sha256(back),
        "links": {os.path.relpath(os.path.join(here, name), back): os.readlink(os.path.join(here, name))
                  for here, _, names in os.walk(back) for name in names if os.path.islink(os.path.join(here, name))},
        "entries": sorted(entries, key=lambda entry: str(entry)),
        "changes": cluster.lines("changes", "home", "--cursor", "0"),
    }
