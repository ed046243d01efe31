//! Rules for pushes and the tokens by which programs push.

use fleet::{
    Engine,
    input::{Decision, Push, Reply},
    record::{Change, Record},
    run::RunState,
    time::Now,
};

use crate::store::{Store, Unit};

/// A push is answered with a run only where its token is good, and beyond the limit only with one that waits already:
/// nothing comes of it then but the answer.
pub(super) fn check_push(engine: &Engine, now: Now, push: &Push, decision: &Decision) -> Result<(), String> {
    let Reply::Run { run, .. } = decision.reply else { return Ok(()) };
    if let Some(id) = &push.token {
        let known = engine.push_token(id);
        let good = known.is_some_and(|token| {
            token.project == push.project && token.expires.is_none_or(|expires| expires > now.wall)
        });
        if !good {
            return Err(format!("{push:?} was let through by {known:?} at {now:?}"));
        }
    }
    if !push.over_limit {
        return Ok(());
    }
    let repeated = push.request.as_ref().is_some_and(|request| {
        engine.records().any(|record| matches!(record, Record::Request(old) if old.key == request.key))
    });
    let waits = engine.run(run).is_some_and(|run| run.state == RunState::Queued && run.wish.makes_tree());
    let written = decision.changes.iter().find(|change| !matches!(change, Change::Put(Record::Request(_))));
    if written.is_some() || !(waits || repeated) {
        return Err(format!("{push:?} was answered with {run}, which waits: {waits}; and {written:?}"));
    }
    Ok(())
}

/// A push token goes with its project.
pub(super) fn check_tokens(store: &Store, unit: &Unit) -> Result<(), String> {
    let deleted =
        unit.changes.iter().any(|change| matches!(change, Change::Delete(fleet::record::Key::Project(_))));
    let made = unit.puts().any(|record| matches!(record, Record::PushToken(_)));
    if !deleted && !made {
        return Ok(());
    }
    let left = store
        .live
        .values()
        .find(|record| matches!(record, Record::PushToken(token) if store.project(token.project).is_none()));
    left.map_or(Ok(()), |left| Err(format!("{left:?}, and its project is gone")))
}
