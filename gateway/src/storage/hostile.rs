//! Whatever bytes lie on the disk, reading them ends in a value or an error.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use crate::domain::{DeliveryKey, EndpointNo, Seq};
use crate::storage::catalog_row::{EndpointRow, KeyRow, TenantRow};
use crate::storage::codec::decode;
use crate::storage::event_row::decode_event;
use crate::storage::fjall::check_backup;
use crate::storage::fold::{Meta, undelta};
use crate::storage::history_row::decode_entry;
use crate::storage::keys::{delivery_at, u32_at, u64_at};
use crate::storage::plugin_row::PluginRow;
use crate::storage::record::{IdRow, RetryRow, decode_records};

/// Often with a version and a length in front that let the reader go on.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..300),
        vec(any::<u8>(), 0..300).prop_map(|it| [&[1][..], &it].concat()),
        vec(any::<u8>(), 0..300).prop_map(|it| [&[1, 20, 0, 0, 0][..], &it].concat()),
        vec(any::<u8>(), 0..300)
            .prop_map(|it| [&b"HGBK\x01\0\0\0\x01\0\x01\x04meta"[..], &it].concat()),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in bytes()) {
        let row = Bytes::from(bytes);
        let delivery = DeliveryKey { seq: Seq(1), endpoint: EndpointNo(1) };
        let _ = decode_event(Seq(1), &row);
        let _ = decode_entry(delivery, &row);
        let _ = decode_records(&row);
        let _ = decode::<Meta>(&row);
        let _ = decode::<IdRow>(&row);
        let _ = decode::<RetryRow>(&row);
        let _ = decode::<TenantRow>(&row).map(|it| it.into_noun().is_ok());
        let _ = decode::<KeyRow>(&row).map(|it| it.into_noun().is_ok());
        let _ = decode::<PluginRow>(&row).map(|it| it.into_noun().is_ok());
        let _ = decode::<EndpointRow>(&row);
        let _ = decode::<Vec<(u64, Vec<u32>)>>(&row);
        let _ = decode::<Vec<u64>>(&row).map(|it| undelta(&it).len());
        let _ = (u64_at(&row, 0), u32_at(&row, 12), delivery_at(&row, 8));
        let _ = check_backup(&row[..]);
    }
}
