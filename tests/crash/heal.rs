//! Cases in which an object is found damaged, and the next upload of its content replaces it.

use std::path::PathBuf;
use std::time::Duration;

use s3dedup_actors::failpoint::Point;

use crate::cases::Action;
use crate::mix::{Client, patiently};
use crate::support::{Noise, gunzip, sha256, upload};
use crate::world::{CLIENTS, World, go_on, is_abort};

/// Names of the content, and one that it is uploaded under again.
const NAMES: [&str; 2] = ["heal/a", "heal/b"];
const AGAIN: &str = "heal/c";
/// How often it is found and uploaded until all names are well: a busy machine answers 503.
const ROUNDS: usize = 20;

fn content() -> Vec<u8> {
    Noise::bytes(4711, 330_000)
}

/// What is read under a name: whether it is the content; whatever is complete must be.
fn reads_well(world: &mut World<'_>, name: &str) -> bool {
    let Ok(answer) = world.server.request("GET", &format!("/files/{name}")).try_send() else { return false };
    let is_told = answer.status == 200 && answer.complete;
    let is_well = is_told && gunzip(&answer.body) == content();
    world.says(is_told && !is_well, format!("{name} is served wrong"));
    world.says(answer.status == 404, format!("{name} is told to be absent"));
    is_well
}

/// Flips a bit of the only object; returns its place and its bytes.
fn damage(world: &World<'_>) -> (PathBuf, Vec<u8>) {
    let digest = sha256(&content());
    let found = world.objects().into_iter().find(|object| object.ends_with(&digest));
    let object = found.expect("the content has an object");
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[2000] ^= 1;
    std::fs::write(&object, &bytes).unwrap();
    (object, bytes)
}

/// Leaves a server that has been driven into the point, started again and healed.
pub fn run(world: &mut World<'_>) {
    world.server.start_again();
    world.all_go_on();
    for name in NAMES {
        patiently(&upload(&world.server, name, 0, &content())).assert_status(200);
    }
    world.server.stop();
    let (object, damaged) = damage(world);
    world.arm();
    world.server.start_again();
    let is_well = reads_well(world, NAMES[0]);
    world.says(is_well, "the damage is not there");
    if !matches!(world.case.point, Point::HealBeforeNote | Point::HealAfterNote) {
        // The first upload of this server, and so the one that reaches the point.
        let answer = upload(&world.server, AGAIN, 0, &content()).try_send();
        if let Ok(answer) = answer {
            world.says(![200, 503, 408].contains(&answer.status), format!("an upload that heals: {}", answer.status));
            let is_well = answer.status != 200 || NAMES.into_iter().all(|name| reads_well(world, name));
            world.says(!is_well, "acknowledged, and not healed");
        }
    }
    world.disarm();
    if world.case.action == Action::Abort {
        let end = world.server.wait();
        world.says(!is_abort(end), format!("the process ended with {end}"));
    } else {
        let mut others: Vec<_> = (CLIENTS..2 * CLIENTS).map(|number| Client::new(number, false)).collect();
        others.iter_mut().for_each(|client| client.may_seem_slow = world.case.action == Action::Block);
        go_on(&mut others, &world.server);
        world.clients.extend(others);
        world.all_check();
        world.server.stop();
    }
    world.server.start_again();
    let is_healed = (0..ROUNDS).any(|round| {
        if round > 0 {
            std::thread::sleep(Duration::from_millis(500));
        }
        // An upload heals what a read has found before.
        reads_well(world, NAMES[0]);
        patiently(&upload(&world.server, AGAIN, 0, &content())).assert_status(200);
        [NAMES[0], NAMES[1], AGAIN].into_iter().all(|name| reads_well(world, name))
    });
    world.says(!is_healed, "an upload does not heal");
    world.says(std::fs::read(&object).ok() != Some(damaged), "the damaged object was deleted or changed");
    world.server.stop();
    world.run(&["verify", "--deep"], &[0]);
    world.server.start_again();
}
