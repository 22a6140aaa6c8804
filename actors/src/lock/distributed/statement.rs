//! The one statement that takes and gives back keys.

use tokio_postgres::{Client, Statement};

use super::queue::{Outcome, Step};
use crate::model::{Error, Kind, Result};
use crate::store::postgres::sql_error;

/// One step. Of a `CASE` only the branch that is chosen is evaluated, so things are done one after the other.
macro_rules! step {
    ($op:literal, $lock:literal, $first:literal) => {
        concat!(
            "(CASE ",
            $op,
            " WHEN 0 THEN CASE WHEN pg_advisory_unlock(",
            $lock,
            ") THEN 1 ELSE 0 END",
            " WHEN 1 THEN CASE WHEN pg_try_advisory_lock(",
            $first,
            ")",
            " THEN CASE WHEN pg_try_advisory_lock(",
            $lock,
            ")",
            " THEN CASE WHEN pg_advisory_unlock(",
            $first,
            ") THEN 4 ELSE 0 END",
            " ELSE 3 END ELSE 2 END",
            " WHEN 2 THEN CASE WHEN pg_try_advisory_lock(",
            $lock,
            ")",
            " THEN CASE WHEN pg_advisory_unlock(",
            $first,
            ") THEN 4 ELSE 0 END",
            " ELSE 3 END END)::int2"
        )
    };
}

/// Rows of `unnest` come in the order of the arrays. The process tells whether this is still the session
/// that was opened: a proxy may hand each statement to another one.
const MANY: &str = concat!(
    "SELECT pg_backend_pid(), array_agg(",
    step!("op", "lock", "first"),
    ") FROM unnest($1::int2[], $2::int8[], $3::int8[]) AS step(op, lock, first)"
);

/// The same for one step, which takes the server half the time.
const ONE: &str = concat!("SELECT pg_backend_pid(), ", step!("$1::int2", "$2::int8", "$3::int8"));

/// The statement, ready to run in one session.
pub(super) struct LockStatement {
    many: Statement,
    one: Statement,
    process: i32,
}

impl LockStatement {
    pub(super) async fn prepare(client: &Client) -> Result<Self> {
        let failed = |error| sql_error("prepare the lock statement", error);
        let many = client.prepare(MANY).await.map_err(failed)?;
        let one = client.prepare(ONE).await.map_err(failed)?;
        let process = client.query_one("SELECT pg_backend_pid()", &[]).await.and_then(|row| row.try_get(0));
        Ok(Self { many, one, process: process.map_err(failed)? })
    }

    /// Does the steps; none at all is a sign of life. After an error it is unknown what is held.
    pub(super) async fn run(&self, client: &Client, steps: &[Step]) -> Result<Vec<Outcome>> {
        let failed = |error| sql_error("take locks", error);
        let parameters = |step: &Step| match *step {
            Step::Unlock(number) => (0_i16, number, 0),
            Step::Join(key) => (1, key.lock, key.first),
            Step::Poll(key) => (2, key.lock, key.first),
        };
        let (row, codes) = if let [step] = steps {
            let (op, lock, first) = parameters(step);
            let row = client.query_one(&self.one, &[&op, &lock, &first]).await.map_err(failed)?;
            let code = row.try_get(1).map_err(failed)?;
            (row, vec![code])
        } else {
            let mut ops = Vec::with_capacity(steps.len());
            let mut locks = Vec::with_capacity(steps.len());
            let mut firsts = Vec::with_capacity(steps.len());
            for (op, lock, first) in steps.iter().map(parameters) {
                ops.push(op);
                locks.push(lock);
                firsts.push(first);
            }
            let row = client.query_one(&self.many, &[&ops, &locks, &firsts]).await.map_err(failed)?;
            let codes: Option<Vec<i16>> = row.try_get(1).map_err(failed)?;
            (row, codes.unwrap_or_default())
        };
        let process: i32 = row.try_get(0).map_err(failed)?;
        if process != self.process {
            return Err(Error::new(Kind::Unavailable, "the lock session is not kept on one connection by the proxy"));
        }
        let outcomes: Option<Vec<Outcome>> = codes.into_iter().map(outcome).collect();
        outcomes
            .filter(|outcomes| outcomes.len() == steps.len())
            .ok_or_else(|| Error::new(Kind::Internal, "the database does not hold what it should"))
    }
}

/// `None` when a number was to be given back that was not held.
fn outcome(code: i16) -> Option<Outcome> {
    match code {
        1 => Some(Outcome::Unlocked),
        2 => Some(Outcome::Behind),
        3 => Some(Outcome::First),
        4 => Some(Outcome::Held),
        _ => None,
    }
}
