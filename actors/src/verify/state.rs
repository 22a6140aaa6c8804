//! How far an interrupted run was.

use serde_json::{Value, json};

use crate::model::{Digest, Error, Kind, Result};
use crate::store::meta::Unreadable;

/// The version of the state's shape.
const FORMAT: u64 = 2;

/// How far a run is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct VerifyState {
    /// The last content that was looked at; `None` at the beginning.
    pub after: Option<Digest>,
    /// Contents that were looked at.
    pub contents: u64,
    /// Bytes of their objects.
    pub stored_bytes: u64,
    /// Contents whose objects were found damaged: to be looked at again.
    pub damaged: Vec<Digest>,
    /// Rows that could not be read. They are not looked at again.
    pub unreadable: Vec<Unreadable>,
}

impl VerifyState {
    /// The state for a file; `store` and `deep` say what it is good for.
    pub fn to_json(&self, store: &str, deep: bool) -> Value {
        let unreadable: Vec<_> = self.unreadable.iter().map(|row| json!([row.place, row.why])).collect();
        let damaged: Vec<String> = self.damaged.iter().map(Digest::to_string).collect();
        json!({
            "format": FORMAT,
            "store": store,
            "deep": deep,
            "after": self.after.map(|digest| digest.to_string()),
            "contents": self.contents,
            "stored_bytes": self.stored_bytes,
            "damaged": damaged,
            "unreadable": unreadable,
        })
    }

    /// Reads it back; one of another store or another kind of run is refused.
    pub fn from_json(value: &Value, store: &str, deep: bool) -> Result<Self> {
        let refuse = |why: &str| Error::new(Kind::Invalid, format!("the file is no state to go on from: {why}"));
        if value["format"] != FORMAT {
            return Err(refuse("it has another format"));
        }
        if value["store"] != store {
            return Err(refuse(&format!("it is of another store: {}", value["store"])));
        }
        if value["deep"] != deep {
            return Err(refuse("one of the runs reads all objects and the other does not"));
        }
        let digest = |value: &Value| {
            let digest = value.as_str().and_then(|text| text.parse().ok());
            digest.ok_or_else(|| refuse("a digest cannot be read"))
        };
        let number = |key: &str| value[key].as_u64().ok_or_else(|| refuse("a number is missing"));
        let list = |key: &str| value[key].as_array().ok_or_else(|| refuse("a list is missing"));
        let (damaged, unreadable) = (list("damaged")?, list("unreadable")?);
        let row = |value: &Value| match (value[0].as_str(), value[1].as_str()) {
            (Some(place), Some(why)) => Ok(Unreadable { place: place.to_owned(), why: why.to_owned() }),
            _ => Err(refuse("a row cannot be read")),
        };
        Ok(Self {
            after: if value["after"].is_null() { None } else { Some(digest(&value["after"])?) },
            contents: number("contents")?,
            stored_bytes: number("stored_bytes")?,
            damaged: damaged.iter().map(digest).collect::<Result<_>>()?,
            unreadable: unreadable.iter().map(row).collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_back_and_that_of_another_run_is_refused() {
        let state = VerifyState {
            after: Some(Digest::from_bytes([7; 32])),
            contents: 3,
            stored_bytes: 1 << 60,
            damaged: vec![Digest::from_bytes([1; 32])],
            unreadable: vec![Unreadable { place: "contents 00".to_owned(), why: "a reason".to_owned() }],
        };
        for state in [state, VerifyState::default()] {
            let json = state.to_json("a", true);
            assert_eq!(VerifyState::from_json(&json, "a", true).unwrap(), state);
            assert!(VerifyState::from_json(&json, "b", true).is_err());
            assert!(VerifyState::from_json(&json, "a", false).is_err());
        }
        assert!(VerifyState::from_json(&Value::Null, "a", true).is_err());
    }
}
