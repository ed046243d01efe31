//! Cuts a list of standing orders into messages of bounded size. Knows no session.

use fleet::{id::ProjectUid, standing::StandingOrder};
use mirror_proto::{convert, v1};
use prost::Message as _;

/// Most bytes of the orders in one message, unless a single one is larger.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

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
        let more = order.encoded_len();
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
