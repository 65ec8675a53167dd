//! Environments that were started before anybody asked for them.

use std::time::{Duration, Instant};

use super::place::{Place, fetched, queried, rounds};
use super::report::{Samples, section};
use super::{data, elastic};

/// For a slot to be made and frozen, and between two attempts.
const PAUSE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 60;

pub fn measure() -> String {
    let place = Place::warm(data::STACK);
    place.file("fill.sh", &data::fill());
    place.muster(&["seed", "import", "big", "postgres=fill.sh"]).ok();
    let postgres = taken(&place, |begun| queried(&place.url("big", "postgres"), data::QUERY, begun));
    drop(place);
    let place = Place::warm(&elastic::stack());
    place.file("docs.ndjson", &elastic::bulk());
    place.muster(&["seed", "import", "big", "search=docs.ndjson"]).ok();
    let search = taken(&place, |begun| {
        let url = place.url("big", "search");
        fetched(url.trim_start_matches("http://"), elastic::SEARCH, "\"Pune\"", begun)
    });
    let row = |what: &str, samples: Vec<f64>, goal: &str| {
        vec![what.to_owned(), format!("{} ms", Samples::of(samples).shown()), goal.to_owned()]
    };
    section(
        "From the warm pool",
        &["", "median (least–largest)", "goal"],
        &[
            row("PostgreSQL: `muster env up --from` → first query answered", postgres, "150 ms"),
            row("Elasticsearch: `muster env up --from` → first search answered", search, "300 ms"),
        ],
        &format!(
            "The same seeds as above, {} times each; the command's own start, a call of `env show` for the address, and psql are included.",
            rounds()
        ),
    )
}

/// Milliseconds of environments that came from the pool; others made it hot, or came too early.
fn taken(place: &Place, answered: impl Fn(Instant) -> f64) -> Vec<f64> {
    let mut all = Vec::new();
    for _ in 0..ATTEMPTS {
        let begun = Instant::now();
        let said = place.muster(&["env", "up", "--from", "big", "--name", "big"]).ok().all();
        let took = answered(begun);
        if said.contains("from the warm pool") {
            all.push(took);
        }
        place.muster(&["env", "down", "big"]).ok();
        if all.len() == rounds() {
            return all;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("{} of {ATTEMPTS} environments came from the warm pool", all.len());
}
