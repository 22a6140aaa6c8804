//! Goal: any sequence of puts and deletes ends as a forty-line model says. Method: random sequences
//! over few names, versions and contents, so that every collision happens; a failing one is shrunk.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use s3dedup_actors::model::Stamp;
use s3dedup_actors::{DeleteOutcome, PutOutcome};

use crate::support::{TestEngine, key};

#[derive(Clone, Debug)]
enum Step {
    Put { name: u8, stamp: i64, content: u8 },
    Delete { name: u8, stamp: i64 },
}

#[derive(Default)]
struct Model(BTreeMap<String, (i64, Vec<u8>)>);

impl Model {
    fn put(&mut self, name: &str, stamp: i64, body: Vec<u8>) -> PutOutcome {
        match self.0.get(name) {
            Some((current, _)) if *current > stamp => PutOutcome::Stale { current: Stamp::from_seconds(*current) },
            _ => {
                self.0.insert(name.to_owned(), (stamp, body));
                PutOutcome::Stored
            }
        }
    }

    fn delete(&mut self, name: &str, stamp: i64) -> DeleteOutcome {
        match self.0.get(name) {
            None => DeleteOutcome::Absent,
            Some((current, _)) if *current > stamp => DeleteOutcome::Stale { current: Stamp::from_seconds(*current) },
            Some(_) => {
                self.0.remove(name);
                DeleteOutcome::Deleted
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = (0u8..4, 0i64..5, 0u8..4).prop_map(|(name, stamp, content)| Step::Put { name, stamp, content });
    let delete = (0u8..4, 0i64..5).prop_map(|(name, stamp)| Step::Delete { name, stamp });
    proptest::collection::vec(prop_oneof![3 => put, 1 => delete], 1..30)
}

fn body(content: u8) -> Vec<u8> {
    vec![content; usize::from(content) * 1000]
}

/// Plays one sequence below `directory` on an engine that has other names too.
async fn play(test: &TestEngine, directory: &str, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    for step in steps {
        match *step {
            Step::Put { name, stamp, content } => {
                let name = format!("{directory}/{name}");
                let outcome = test.put(&name, stamp, &body(content)).await.unwrap();
                prop_assert_eq!(outcome, model.put(&name, stamp, body(content)));
            }
            Step::Delete { name, stamp } => {
                let name = format!("{directory}/{name}");
                let outcome = test.engine.delete(key(&name), Stamp::from_seconds(stamp)).await.unwrap();
                prop_assert_eq!(outcome, model.delete(&name, stamp));
            }
        }
    }
    for name in 0..4 {
        let name = format!("{directory}/{name}");
        prop_assert_eq!(test.get(&name).await.unwrap(), model.0.get(&name).cloned());
    }
    let names: Vec<_> = model.0.keys().map(|name| name[directory.len() + 1..].to_owned()).collect();
    prop_assert_eq!(test.list(directory).await, names);
    for name in model.0.keys() {
        test.engine.delete(key(name), Stamp::from_seconds(i64::MAX)).await.unwrap();
    }
    prop_assert_eq!(test.engine.totals().await.unwrap().entries, 0);
    Ok(())
}

#[test]
fn every_sequence_of_puts_and_deletes_ends_as_the_model_says() {
    let system = actix_rt::System::new();
    let test = system.block_on(async { TestEngine::start() });
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    // Every sequence, a shrunk one too, has names of its own.
    let number = Cell::new(0);
    let played = TestRunner::new(config).run(&steps(), |steps| {
        number.set(number.get() + 1);
        system.block_on(play(&test, &format!("case-{}", number.get()), &steps))
    });
    played.unwrap();
    system.block_on(test.stop());
}
