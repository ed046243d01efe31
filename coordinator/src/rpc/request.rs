//! What makes a repeated request the same one: a key of user, method and request id, and a hash of all the rest.
//! The engine remembers the answer under it for a day, in the same commit as what was done.

use aws_lc_rs::digest::{SHA256, digest};
use fleet::{input::RequestKey, refusal::Violation};
use mirror_proto::convert::parse_request_id;
use prost::Message;

use super::By;
use crate::audit::origin;

/// The key of a request with a request id; `None`: it has none. `message` is the request as it came.
///
/// # Errors
/// An id that is too long or not of visible ASCII.
pub fn key(
    by: &By,
    method: &str,
    request_id: &str,
    message: &impl Message,
) -> Result<Option<RequestKey>, Violation> {
    let id = parse_request_id("request_id", request_id)?;
    if let Some(id) = &id {
        origin::request_id(id);
    }
    // The id is part of the message and the same in both; maps are ordered, so the same message has the same bytes.
    let payload = || hex::encode(digest(&SHA256, &message.encode_to_vec()));
    Ok(id.map(|id| RequestKey { key: format!("{} {method} {id}", by.folded()), payload: payload() }))
}

#[cfg(test)]
mod tests {
    use fleet::id::Name;
    use mirror_proto::v1::FreezeRequest;

    use super::*;

    #[test]
    fn a_key_tells_users_methods_ids_and_payloads_apart() {
        let by = |name: &str| By::from(&name.parse::<Name>().unwrap());
        let (maria, other) = (by("Maria"), by("jo"));
        let message = |reason: &str| FreezeRequest { reason: reason.to_owned() };
        let of = |by: &By, method: &str, id: &str, reason: &str| {
            key(by, method, id, &message(reason)).unwrap().unwrap()
        };
        let first = of(&maria, "Freeze", "1", "x");
        assert_eq!(first, of(&by("maria"), "Freeze", "1", "x"));
        for (by, method, id) in [(&other, "Freeze", "1"), (&maria, "Thaw", "1"), (&maria, "Freeze", "2")] {
            assert_ne!(first.key, of(by, method, id, "x").key);
        }
        let changed = of(&maria, "Freeze", "1", "y");
        assert!(changed.key == first.key && changed.payload != first.payload);
    }

    #[test]
    fn without_an_id_there_is_no_key_and_a_bad_id_is_refused() {
        let maria = By::from(&"maria".parse::<Name>().unwrap());
        assert_eq!(key(&maria, "Freeze", "", &FreezeRequest::default()).unwrap(), None);
        assert_eq!(key(&maria, "Freeze", "a b", &FreezeRequest::default()).unwrap_err().field, "request_id");
    }
}
