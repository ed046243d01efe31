//! Cuts a list of standing orders into messages of bounded size. Knows no session.

use fleet::{id::ProjectUid, standing::StandingOrder};
use mirror_proto::{convert, v1};
use prost::Message as _;

/// Most bytes of the orders in one message, unless a single one is larger.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// What one order takes besides its own bytes: its tag and its length.
const FRAME_BYTES: usize = 6;

/// The messages that say one list of orders; at least one.
pub(super) fn messages(
    serial: u64,
    complete: bool,
    orders: &[StandingOrder],
    withdrawn: &[ProjectUid],
) -> Vec<v1::Autonomy> {
    let withdrawn = withdrawn.iter().map(|project| project.0).collect();
    let first = v1::Autonomy { serial, complete, withdrawn, ..v1::Autonomy::default() };
    let (mut messages, mut bytes) = (vec![first], 0);
    for order in orders.iter().map(convert::standing_order_to_wire) {
        let more = order.encoded_len() + FRAME_BYTES;
        if bytes > 0 && bytes + more > MESSAGE_BYTES_MAX {
            messages.push(v1::Autonomy { serial, ..v1::Autonomy::default() });
            bytes = 0;
        }
        bytes += more;
        if let Some(last) = messages.last_mut() {
            last.orders.push(order);
        }
    }
    let last = messages.len() - 1;
    messages[..last].iter_mut().for_each(|message| message.more = true);
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_is_said_too() {
        let said = messages(3, true, &[], &[ProjectUid(7)]);
        assert_eq!(said.len(), 1);
        assert!(said[0].complete && !said[0].more && said[0].serial == 3);
        assert_eq!(said[0].withdrawn, [7]);
    }

    #[test]
    fn a_long_list_goes_on_and_only_its_first_message_begins_it() {
        let order = StandingOrder {
            template: crate::outbox::tests::work(),
            schedule: fleet::schedule::Schedule::new(
                fleet::schedule::Cadence::Interval {
                    every_seconds: 3_600,
                    from: fleet::schedule::IntervalFrom::Start,
                },
                "UTC".parse().unwrap(),
            ),
            next_fire: None,
        };
        let one = convert::standing_order_to_wire(&order).encoded_len();
        let orders = vec![order; 2 * MESSAGE_BYTES_MAX / one];
        let said = messages(3, true, &orders, &[]);
        assert!(said.len() > 1);
        assert!(said.iter().all(|message| message.encoded_len() < MESSAGE_BYTES_MAX + 64));
        assert_eq!(said.iter().map(|message| message.orders.len()).sum::<usize>(), orders.len());
        let flags: Vec<(bool, bool)> = said.iter().map(|message| (message.complete, message.more)).collect();
        assert_eq!((flags[0], flags[flags.len() - 1]), ((true, true), (false, false)));
    }
}
