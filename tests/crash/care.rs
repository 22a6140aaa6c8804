//! Cases in `verify`, `repair` and `import`: a damaged store, a command that is cut off, the cleaner in between, and the
//! command again.

use std::path::PathBuf;
use std::time::SystemTime;

use s3dedup_actors::failpoint::Point;

use crate::audit::Database;
use crate::mix::patiently;
use crate::support::{Noise, TestServer, gunzip, sha256, upload};
use crate::world::World;

/// Whole again after a repair.
const LOST: &str = "care/lost";
const FORGOTTEN: &str = "care/forgotten";
const REMOTE: &str = "care/remote";
/// Found damaged, and whole after all.
const NOTED: &str = "care/noted";
/// Gone, and back with its next upload.
const AWAITED: &str = "care/awaited";
/// Damaged for good.
const BROKEN: &str = "care/broken";

fn content(name: &str) -> Vec<u8> {
    let seed = name.bytes().fold(77, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
    Noise::bytes(seed, 5000)
}

fn object(world: &World<'_>, name: &str) -> PathBuf {
    let digest = sha256(&content(name));
    let found = world.objects().into_iter().find(|object| object.ends_with(&digest));
    found.unwrap_or_else(|| panic!("{name} has no object"))
}

/// Fills the store, and ends the server.
fn fill(world: &mut World<'_>) {
    // With everything elsewhere the server makes none.
    std::fs::create_dir_all(world.server.data_dir()).unwrap();
    world.server.start_again();
    world.all_go_on();
    for name in [LOST, FORGOTTEN, REMOTE, NOTED, AWAITED, BROKEN] {
        patiently(&upload(&world.server, name, 0, &content(name))).assert_status(200);
    }
    world.server.stop();
}

fn damage(world: &World<'_>) {
    // The object of another upload of it is left, with the intent of that.
    let lost = object(world, LOST);
    std::fs::rename(&lost, lost.with_extension("7")).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    world.leave_intent(&sha256(&content(LOST)), 7, now);
    let hex = world.bytes(&sha256(&content(FORGOTTEN)));
    let forget = format!("DELETE FROM contents WHERE digest = {hex}; DELETE FROM representations WHERE digest = {hex}");
    world.sql(&forget);
    let hex = world.bytes(&sha256(&content(NOTED)));
    world.sql(&format!("UPDATE representations SET suspect_since = 1 WHERE digest = {hex}"));
    std::fs::remove_file(object(world, AWAITED)).unwrap();
    let broken = object(world, BROKEN);
    let mut bytes = std::fs::read(&broken).unwrap();
    bytes[2000] ^= 1;
    std::fs::write(&broken, bytes).unwrap();
}

/// A server that has what is lost.
fn fallback(world: &mut World<'_>) -> TestServer {
    let other = TestServer::start();
    patiently(&upload(&other, REMOTE, 0, &content(REMOTE))).assert_status(200);
    std::fs::remove_file(object(world, REMOTE)).unwrap();
    world.server.set_env("FALLBACK_URL", Some(&other.url()));
    other
}

fn repair(world: &mut World<'_>) {
    damage(world);
    let _other = (world.case.point == Point::RepairAfterObject).then(|| fallback(world));
    let broken = std::fs::read(object(world, BROKEN)).unwrap();
    world.run_armed(&["repair", "--deep"], &[9]);
    // Whatever was done: nothing that a name needs is cleaned away, and a server can run.
    world.clean(&["clean"]);
    world.server.start_again();
    world.all_check();
    world.server.stop();
    // What is broken stays.
    world.run(&["repair", "--deep"], &[9]);
    let verified = world.run(&["verify", "--deep", "--json"], &[9]);
    let told: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap_or_default();
    let damages = told["damages"].as_array().map_or(0, Vec::len);
    world.says(damages != 2, format!("after the repair: {told:#}"));
    let is_cleared = told["cleared"].as_array().is_some_and(Vec::is_empty);
    world.says(!is_cleared, format!("still noted as damaged: {told:#}"));
    // Whoever took an object from an abandoned upload has its intent, too: no cleaner comes for that any more.
    world.sql("UPDATE intents SET made_at = 1");
    let is_kept = std::fs::read(object(world, BROKEN)).unwrap() == broken;
    world.says(!is_kept, "the broken object was changed");
    world.clean(&["clean"]);
    world.server.start_again();
    let answer = world.server.request("GET", &format!("/files/{BROKEN}")).try_send();
    let is_served = answer.is_ok_and(|answer| answer.status == 200 && answer.complete);
    world.says(is_served, "a broken content is served");
    patiently(&upload(&world.server, AWAITED, 0, &content(AWAITED))).assert_status(200);
}

/// A database that is lost, and how it comes back.
fn rebuild(world: &mut World<'_>) {
    let names = world.server.data_dir().join("names.jsonl");
    let names = names.to_str().unwrap().to_owned();
    world.run(&["export", "--output", &names], &[0]);
    match &world.database {
        Database::Sqlite(path) => std::fs::remove_file(path).unwrap(),
        Database::Postgres(..) => world.sql("SET search_path TO public; DROP SCHEMA s3dedup CASCADE"),
    }
    let rebuild = ["repair", "--rebuild"];
    if matches!(world.case.point, Point::RebuildAfterTakeOver | Point::RebuildAfterContent) {
        world.run_armed(&rebuild, &[0]);
    }
    world.run(&rebuild, &[0]);
    // Nothing has a name yet: a cleaner that is too early must not take that for garbage.
    world.run(&["clean"], &[1]);
    let import = ["import", &names];
    if world.case.point == Point::ImportInPage {
        world.run_armed(&import, &[0]);
    }
    world.run(&import, &[0]);
    world.clean(&["clean"]);
    world.run(&["verify", "--deep"], &[0]);
    world.server.start_again();
}

fn verify(world: &mut World<'_>) {
    let state = world.server.data_dir().join("verify.json");
    let arguments = ["verify", "--deep", "--resume", state.to_str().unwrap()];
    world.run_armed(&arguments, &[0]);
    world.run(&arguments, &[0]);
    world.server.start_again();
}

/// Runs a case; returns what was wrong.
pub fn run(mut world: World<'_>) -> Vec<String> {
    fill(&mut world);
    match world.case.point {
        Point::VerifyBeforeContent => verify(&mut world),
        Point::RebuildAfterTakeOver | Point::RebuildAfterContent | Point::ImportInPage => rebuild(&mut world),
        _ => repair(&mut world),
    }
    world.all_check();
    for name in [LOST, FORGOTTEN, REMOTE, NOTED, AWAITED] {
        let answer = patiently(&world.server.request("GET", &format!("/files/{name}")));
        let is_right = answer.status == 200 && answer.complete && gunzip(&answer.body) == content(name);
        world.says(!is_right, format!("{name} is not what it was: {}", answer.status));
    }
    world.server.stop();
    world.look();
    world.into_wrong()
}
