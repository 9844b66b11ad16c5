use std::{ops::Bound, time::Duration};

use crate::domain::{
    DeadReason, DeliveryKey, Endpoint, EndpointNo, EventId, Ordering, Quota, Retention, Seq, Slug,
    TenantNo, Timestamp, Verdict,
};
use crate::storage::codec::decode;
use crate::storage::conformance::{Bench, endpoint as endpoint_of, event};
use crate::storage::fold::kind;
use crate::storage::verify::Verification;
use crate::storage::{Appended, Keep, NewEvent, Result, Table, Trimmed};

const HOUR: Duration = Duration::from_secs(3600);

/// What retention must do on every backend: the rest of [`check`](super::conformance::check).
impl Bench<'_> {
    /// Lets go of what is older than two hours.
    async fn trim(&self) -> Result<Trimmed> {
        let kept = Retention::For(2 * HOUR);
        let trimmed = self.shard().trim(Keep { events: kept, audit: kept }).await?;
        self.find_nothing_wrong()?;
        Ok(trimmed)
    }

    fn find_nothing_wrong(&self) -> Result<()> {
        let shard = self.shard();
        let meta = shard.view.get(Table::Meta, &shard.no.all())?.expect("it was written");
        let (meta, floors) = (&decode(&meta)?, &*shard.floors());
        let (progress, findings) = (&mut |_, _| {}, Vec::new());
        let (view, shard) = (&*shard.view, shard.no);
        let mut it = Verification { view, shard, meta, floors, progress, findings };
        it.run()?;
        assert_eq!(it.findings, [""; 0]);
        Ok(())
    }

    fn seqs(&self, tenant: TenantNo) -> Result<Vec<u64>> {
        let events = self.shard().events_before(tenant, Seq(u64::MAX));
        let mut seqs = events.map(|it| Ok(it?.seq.0)).collect::<Result<Vec<_>>>()?;
        seqs.reverse();
        Ok(seqs)
    }

    /// Rows of what waits for another attempt.
    fn waiting(&self, endpoint: EndpointNo) -> usize {
        let shard = self.shard();
        let (from, to) =
            (shard.no.endpoint(endpoint), shard.no.endpoint(EndpointNo(endpoint.0 + 1)));
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        shard.view.range(Table::Retries, range.0, range.1).count()
    }

    /// Rows that name endpoints which were deleted, once those of before are looked through.
    async fn names_of_deleted(&self) -> Result<usize> {
        self.trim().await?;
        let shard = self.shard();
        let key = |kind| shard.no.catalog(kind, TenantNo(0), "");
        let (from, to) = (key(kind::DELETED_ENDPOINT), key(kind::DELETED_ENDPOINT + 1));
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        Ok(shard.view.range(Table::Catalog, range.0, range.1).count())
    }

    fn dead_letters(&self, tenant: TenantNo) -> usize {
        let end = DeliveryKey { seq: Seq(0), endpoint: EndpointNo(0) };
        self.shard().dead_before(tenant, (Timestamp(u64::MAX), end)).count()
    }
}

/// Checks all of it, in this order.
pub(super) async fn check(bench: &mut Bench<'_>) -> Result<()> {
    what_is_too_old_goes_unless_it_is_needed(bench).await?;
    what_is_gone_is_not_attempted_again(bench).await?;
    each_tenant_has_its_own(bench).await?;
    what_is_left_of_a_deleted_endpoint_goes(bench).await
}

async fn what_is_too_old_goes_unless_it_is_needed(bench: &mut Bench<'_>) -> Result<()> {
    tokio::time::sleep(3 * HOUR).await;
    let endpoint = bench.endpoint_with(Ordering::None, 4).await?;
    let tenant = bench.shard().catalog().tenant(&Slug::default_tenant()).expect("it").tenant.no;
    let last = bench.shard().last_seq().0;
    let mut leases = bench.lease(&endpoint, 4).await?.into_iter();
    let (done, again) = (leases.next().expect("four"), leases.next().expect("four"));
    let first = done.event.clone();
    let due = bench.clock.now() + 5 * HOUR;
    bench.settle(done, Verdict::Delivered).await?;
    bench.settle(again, Verdict::RetryAt(due)).await?;
    bench.settle(leases.next().expect("four"), Verdict::Delivered).await?;
    drop(leases);
    bench.written().await?;

    // All from before is gone, and nothing that is younger.
    let trimmed = bench.trim().await?;
    assert_eq!((trimmed.events, trimmed.oldest), (last - 4, Some(Duration::ZERO)));
    assert_eq!(bench.seqs(tenant)?, [last - 3, last - 2, last - 1, last]);
    assert_eq!((bench.shard().event(Seq(1))?, bench.dead_letters(tenant)), (None, 0));
    assert_eq!(bench.trim().await?.events, 0);

    // What waits for another attempt or for its first holds all behind it.
    tokio::time::sleep(4 * HOUR).await;
    assert_eq!(bench.trim().await?.events, 1);
    for crashed in [false, true] {
        if crashed {
            bench.crash().await?;
        }
        assert_eq!(bench.seqs(tenant)?, [last - 2, last - 1, last], "crashed: {crashed}");
        assert_eq!(bench.shard().event_by_id(tenant, &first.id)?, None);
        assert_eq!(bench.shard().deliveries_before(endpoint.no, Seq(u64::MAX)).count(), 3);
        assert_eq!(bench.shard().unfinished(), (1, 1));
    }

    // A dead letter holds its event from when it died.
    let fresh = bench.lease(&endpoint, 1).await?.remove(0);
    bench.settle(fresh, Verdict::Delivered).await?;
    let again = bench.lease(&endpoint, 1).await?.remove(0);
    assert_eq!(again.attempts, 1);
    bench.settle(again, Verdict::Dead(DeadReason::Gone)).await?;
    bench.written().await?;
    assert_eq!((bench.trim().await?.events, bench.dead_letters(tenant)), (0, 1));
    tokio::time::sleep(3 * HOUR).await;
    bench.crash().await?;
    assert_eq!(bench.shard().dead(), 1);
    let trimmed = bench.trim().await?;
    assert_eq!((trimmed.events, trimmed.oldest), (3, None));
    for crashed in [false, true] {
        if crashed {
            bench.crash().await?;
        }
        assert_eq!((bench.seqs(tenant)?.len(), bench.dead_letters(tenant)), (0, 0));
        assert_eq!((bench.shard().dead(), bench.shard().unfinished()), (0, (0, 0)));
        assert_eq!(bench.shard().audit_before(None, (Timestamp(u64::MAX), 0)).count(), 0);
        assert_eq!(bench.shard().deliveries_before(endpoint.no, Seq(u64::MAX)).count(), 0);
    }
    // A name is free again when its window is over too, and numbers go on.
    tokio::time::sleep(24 * HOUR).await;
    let named = NewEvent { id: EventId::parse("mine.1"), ..event() };
    let Appended::New { seq, .. } = bench.append(named).await? else { panic!("it is new") };
    assert_eq!(seq.0, last + 1);
    assert_eq!(bench.seqs(tenant)?, [last + 1]);
    Ok(())
}

/// A crash comes after the mark, and before the cursor that it passed is saved.
async fn what_is_gone_is_not_attempted_again(bench: &mut Bench<'_>) -> Result<()> {
    let endpoint = bench.endpoint_with(Ordering::None, 4).await?;
    tokio::time::sleep(3 * HOUR).await;
    // Cursors are saved by now, so what moves them next stays unsaved for seconds.
    bench.written().await?;
    let first = bench.lease(&endpoint, 1).await?.remove(0);
    let gone = first.key.seq;
    bench.settle(first, Verdict::Delivered).await?;
    bench.written().await?;
    bench.trim().await?;
    let shard = bench.shard();
    assert_eq!((shard.floors().shard, shard.event(gone)?), (gone.0, None));
    let cursor = shard.view.get(Table::Cursors, &shard.no.endpoint(endpoint.no))?;
    assert_eq!(cursor, None, "the mark has passed it");
    // The first crash finds the rows again, and lets them go; the second may not find them.
    bench.crash().await?;
    bench.crash().await?;
    assert_eq!(bench.shard().unfinished(), (3, 0));
    let leases = bench.lease(&endpoint, 4).await?;
    let lent: Vec<_> = leases.iter().map(|it| it.key.seq.0 - gone.0).collect();
    assert_eq!(lent, [1, 2, 3]);
    for lease in leases {
        bench.settle(lease, Verdict::Delivered).await?;
    }
    bench.written().await?;
    assert_eq!((bench.shard().unfinished(), bench.shard().dead()), ((0, 0), 0));
    Ok(())
}

async fn each_tenant_has_its_own(bench: &mut Bench<'_>) -> Result<()> {
    let (brief, long) = (Slug::parse("brief").expect("a slug"), Slug::parse("long").expect("it"));
    for (slug, retention) in [(&brief, Retention::For(HOUR)), (&long, Retention::Forever)] {
        let quota = Quota { retention: Some(retention), ..Quota::default() };
        let shard = bench.store.shard(slug);
        let put = shard.put_tenant(slug, |_| Ok((String::new(), quota))).await;
        assert_eq!(put.expect("a tenant").0.quota, quota);
        shard.append(slug, vec![event()], true).await?;
        let seq = shard.last_seq();
        let event = shard.read_after(Seq(seq.0 - 1), 1).await?.remove(0);
        shard.enqueue(&[(event, Vec::new())]).await?;
        shard.commit(Vec::new()).await?;
    }
    tokio::time::sleep(HOUR + Duration::from_secs(600)).await;
    bench.crash().await?;
    let keep = Keep { events: Retention::For(2 * HOUR), audit: Retention::Forever };
    for shard in bench.store.shards() {
        shard.trim(keep).await?;
    }
    for (slug, left) in [(&brief, 0), (&long, 1)] {
        let shard = bench.store.shard(slug);
        let tenant = shard.catalog().tenant(slug).expect("it").tenant.clone();
        assert_eq!(shard.events_before(tenant.no, Seq(u64::MAX)).count(), left, "{slug}");
    }
    // Back to what the gateway's settings say.
    let shard = bench.store.shard(&long);
    let put = shard.put_tenant(&long, |_| Ok((String::new(), Quota::default()))).await;
    assert_eq!(put.expect("a tenant").0.quota.retention, None);
    tokio::time::sleep(HOUR).await;
    bench.crash().await?;
    let shard = bench.store.shard(&long);
    let tenant = shard.catalog().tenant(&long).expect("it").tenant.clone();
    assert_eq!(tenant.quota.retention, None);
    shard.trim(keep).await?;
    assert_eq!(shard.events_before(tenant.no, Seq(u64::MAX)).count(), 0);
    Ok(())
}

async fn what_is_left_of_a_deleted_endpoint_goes(bench: &mut Bench<'_>) -> Result<()> {
    let due = bench.clock.now() + 9 * HOUR;
    // More than are removed at once.
    let endpoint = bench.endpoint_with(Ordering::None, 600).await?;
    let kept = bench.endpoint_with(Ordering::None, 1).await?;
    for (endpoint, mut left) in [(&endpoint, 600), (&kept, 1)] {
        while left > 0 {
            for lease in bench.lease(endpoint, left).await? {
                bench.settle(lease, Verdict::RetryAt(due)).await?;
                left -= 1;
            }
        }
    }
    bench.written().await?;
    let deleted = bench.shard().delete_endpoint(&endpoint.tenant, &endpoint.id, |_| Ok(())).await;
    deleted.expect("it is there");
    assert_eq!([bench.waiting(endpoint.no), bench.waiting(kept.no)], [600, 1]);
    bench.trim().await?;
    assert_eq!([bench.waiting(endpoint.no), bench.waiting(kept.no)], [0, 1]);
    assert_eq!(bench.shard().unfinished(), (0, 1));
    // Its deliveries are still shown, and name it.
    bench.crash().await?;
    assert_eq!(bench.shard().deliveries_before(endpoint.no, Seq(u64::MAX)).count(), 600);
    assert_eq!(bench.shard().catalog().endpoint_id(endpoint.no), Some(endpoint.id.clone()));
    for _ in 0..2 {
        bench.trim().await?;
        assert_eq!(bench.shard().catalog().endpoint_id(endpoint.no), Some(endpoint.id.clone()));
    }
    tokio::time::sleep(3 * HOUR).await;
    bench.trim().await?;
    assert_eq!(bench.shard().deliveries_before(endpoint.no, Seq(u64::MAX)).count(), 0);
    assert_eq!(bench.shard().catalog().endpoint_id(endpoint.no), None);
    assert_eq!(bench.names_of_deleted().await?, 0);
    assert_eq!((bench.waiting(kept.no), bench.shard().unfinished()), (1, (0, 1)));

    // Of a tenant that is gone nobody can ask for anything.
    let slug = Slug::parse("brief").expect("a slug");
    let shard = bench.store.shard(&slug).clone();
    let make = |no| Endpoint { tenant: slug.clone(), ..endpoint_of(no) };
    let made = shard.create_endpoint(&slug, make).await.expect("a new id");
    shard.delete_tenant(&slug, |_| Ok(())).await.expect("it is there");
    let keep = Keep { events: Retention::Forever, audit: Retention::Forever };
    shard.trim(keep).await?;
    assert!(shard.catalog().endpoint_id(made.no).is_some());
    shard.trim(keep).await?;
    assert_eq!(shard.catalog().endpoint_id(made.no), None);
    Ok(())
}
