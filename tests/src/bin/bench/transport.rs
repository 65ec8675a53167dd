//! Bringing a database of about 1 GB to another host, and then a snapshot of it in which little was changed.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;
use tests::harness::call::Call;
use tests::harness::cluster::Cluster;
use tests::harness::host::Host;

use super::data;
use super::report::{figure, section};

/// About 1 GB of rows and an index.
const FILL: &str = "psql -X -q -U shop -d shop -c \"CREATE TABLE big AS SELECT g AS id, md5(g::text) || md5((g + 1)::text) \
|| md5((g + 2)::text) AS text FROM generate_series(1, 6500000) g\" -c 'CREATE INDEX ON big (id)'\n";
/// About 20 MB more, one after the other.
const MORE: &str = "INSERT INTO big SELECT g, md5(g::text) || md5((g + 1)::text) || md5((g + 2)::text) \
                    FROM generate_series(6500001, 6650000) g";
/// 2500 rows all over the table: about 20 MB of pages.
const SCATTERED: &str = "UPDATE big SET text = reverse(text) WHERE id % 2600 = 0";

struct Place {
    cluster: Cluster,
    host: Host,
    /// Pulls; runs for as long as this is there.
    _other: Host,
    folder: PathBuf,
}

/// What a way cost.
struct Way {
    pushed: f64,
    pulled: f64,
    seconds: f64,
}

impl Place {
    fn muster(&self, words: &[&str]) -> Call {
        self.cluster.muster(words).by("asha").within(&self.folder).env("MUSTER_AGENT_SOCKET", self.host.socket())
    }

    fn bring(&self, seed: &str) -> Way {
        let begun = Instant::now();
        self.muster(&["seed", "pull", seed, "--host", "box-ben"]).by("admin").ok();
        let seconds = begun.elapsed().as_secs_f64();
        let shown: Value = self.muster(&["seed", "show", seed]).json();
        let copies = shown["copies"].as_array().cloned().unwrap_or_default();
        let moved = |host: &str| {
            let copy = copies.iter().find(|copy| copy["host"].as_str().unwrap_or_default() == host);
            let bytes = copy.map(|copy| &copy["moved_bytes"]);
            let number = bytes.and_then(|bytes| bytes.as_f64().or_else(|| bytes.as_str()?.parse().ok()));
            number.unwrap_or(0.0) / 1e6
        };
        Way { pushed: moved(""), pulled: moved("box-ben"), seconds }
    }

    /// A snapshot after `sql` in an environment of its own.
    fn changed(&self, name: &str, sql: &str) -> Way {
        self.muster(&["env", "up", "--from", "big", "--name", name]).ok();
        let words = ["env", "exec", "-e", name, "postgres", "--", "psql", "-q", "-U", "shop", "-d", "shop", "-c"];
        self.muster(&[words.as_slice(), &[sql, "-c", "CHECKPOINT"]].concat()).ok();
        self.muster(&["env", "snapshot", name, name]).ok();
        self.muster(&["env", "down", name]).ok();
        self.bring(&format!("asha/{name}"))
    }
}

pub fn measure() -> String {
    let cluster = Cluster::start();
    let host = cluster.host("box-asha").label("owner", "asha").pool("auto").join();
    let other = cluster.host("box-ben").label("owner", "ben").pool("auto").join();
    let folder = cluster.folder().join("big");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("compose.yaml"), data::STACK).expect("compose.yaml");
    std::fs::write(folder.join("fill.sh"), FILL).expect("fill.sh");
    let place = Place { cluster, host, _other: other, folder };
    place.muster(&["seed", "import", "big", "postgres=fill.sh"]).ok();
    let shown: Value = place.muster(&["seed", "show", "big"]).json();
    let bytes = &shown["bytes"];
    let bytes = bytes.as_f64().or_else(|| bytes.as_str()?.parse().ok()).unwrap_or(0.0);
    let ways = [
        ("the whole seed", place.bring("big")),
        ("a snapshot with 20 MB of new rows", place.changed("more", MORE)),
        ("a snapshot with 2500 changed rows all over the table", place.changed("scattered", SCATTERED)),
    ];
    let rows = ways.map(|(what, way)| {
        let (pushed, pulled) = (figure(way.pushed), figure(way.pulled));
        vec![what.to_owned(), format!("{pushed} MB"), format!("{pulled} MB"), format!("{} s", figure(way.seconds))]
    });
    section(
        "A database brought to another host",
        &["", "sent to the store", "fetched from it", "both, with `muster seed pull`"],
        &rows,
        &format!(
            "PostgreSQL 15 with {} GB of data files, both hosts and the coordinator on one machine. Pieces are compressed on the way. A new \
             write-ahead log and the server's own start are part of each snapshot. Once each.",
            figure(bytes / 1e9)
        ),
    )
}
