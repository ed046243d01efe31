//! Pushes, and the tokens by which programs push. A push is a trigger like a schedule's fire: it joins the run that waits,
//! and waits while the project is paused. How fast who pushes is the shell's matter; what becomes of a push that comes
//! too fast is decided here, after all that came before it.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    time::Duration,
};

use super::{
    effects::Effects,
    guard::no_origin,
    life::archived_refusal,
    people::Outcome,
    requests::remember,
    state::{Engine, Project},
};
use crate::{
    agent::PushToken,
    defaults,
    id::{ProjectUid, RunId},
    input::{Decision, NewPushToken, Push, Reply},
    record::{Answer, Change, Key, Record},
    refusal::{Refusal, RefusalCode, Violation},
    run::{Trigger, TriggerKind, Wish},
    time::{Now, Wall},
};

/// A push token's shortest life.
const TTL_MIN: Duration = Duration::from_secs(60);

/// The reason of a push that came too fast and found no run that waits: the shell says when to push again.
pub const PUSHED_TOO_OFTEN: &str = "PUSHED_TOO_OFTEN";

/// All push tokens; those of a project are found without the others.
#[derive(Debug, Clone, Default)]
pub(super) struct PushTokens {
    tokens: BTreeMap<String, PushToken>,
    of: BTreeMap<ProjectUid, BTreeSet<String>>,
}

impl PushTokens {
    pub(super) fn put(&mut self, token: &PushToken) {
        self.remove(&token.id);
        self.of.entry(token.project).or_default().insert(token.id.clone());
        self.tokens.insert(token.id.clone(), token.clone());
    }

    pub(super) fn remove(&mut self, id: &str) {
        let Some(old) = self.tokens.remove(id) else { return };
        let Some(own) = self.of.get_mut(&old.project) else { return };
        own.remove(id);
        if own.is_empty() {
            self.of.remove(&old.project);
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&PushToken> {
        self.tokens.get(id)
    }

    /// In order of their ids.
    pub(super) fn all(&self) -> btree_map::Values<'_, String, PushToken> {
        self.tokens.values()
    }

    /// The ids of those of one project.
    pub(super) fn of(&self, project: ProjectUid) -> impl Iterator<Item = &str> {
        self.of.get(&project).into_iter().flatten().map(String::as_str)
    }
}

impl Engine {
    pub(super) fn push(&self, now: Now, by: String, push: Push) -> Outcome {
        let Push { project: uid, token, over_limit, request, traceparent } = push;
        let token = token.map(|id| self.good_push_token(now.wall, &id, uid)).transpose()?;
        let by_user = token.is_none();
        if let Some(reply) = self.remembered(now, request.as_ref())? {
            return Ok(Decision { reply, ..Decision::nothing() });
        }
        let project = self.find_project(uid)?;
        archived_refusal(project, TriggerKind::Push).map_or(Ok(()), Err)?;
        let mut effects = Effects::of(self);
        if over_limit {
            // It has not begun, so it copies what this push tells of: nothing is lost, and nothing written. Not even its id:
            // repeated, it gets such an answer again, or a refusal that says so.
            let waiting = self.waiting_run(project).ok_or_else(|| too_often(project))?;
            effects.reply(self.push_reply(project, waiting.id, true, by_user));
            return Ok(effects.decision());
        }
        let trigger = Trigger { kind: TriggerKind::Push, by, time: now.wall, autonomous: false };
        let triggered = self.trigger(now, project, trigger, Wish::default(), traceparent, &mut effects);
        if let Some(token) = token {
            effects.put(Record::PushToken(PushToken { last_used: Some(now.wall), ..token.clone() }));
        }
        let (run, coalesced) = triggered.ok_or_else(|| no_origin(project))?;
        let reply = self.push_reply(project, run, coalesced, by_user);
        let coalesced = matches!(reply, Reply::Run { coalesced: true, .. });
        let mut decision = effects.decision();
        remember(now, request, Answer::Run { project: uid, run, coalesced }, &mut decision);
        decision.reply = reply;
        Ok(decision)
    }

    /// A token's holder learns that its run waits, and of nobody's name.
    fn push_reply(&self, project: &Project, run: RunId, coalesced: bool, by_user: bool) -> Reply {
        let by_person = self.runs.get(&run).is_some_and(|run| run.by_person);
        self.run_reply(project, run, coalesced, !by_person, by_user)
    }

    /// The token, as long as it is good for this project. The shell asked before; it may have been deleted since.
    fn good_push_token(&self, now: Wall, id: &str, project: ProjectUid) -> Result<&PushToken, Refusal> {
        let good = |token: &&PushToken| token.project == project && token.is_good(now);
        self.push_token(id).filter(good).ok_or_else(|| {
            Refusal::new(
                RefusalCode::Unauthenticated,
                "TOKEN_NOT_GOOD",
                "the push token is not good any more",
            )
        })
    }

    pub(super) fn create_push_token(&self, now: Now, by: String, new: NewPushToken) -> Outcome {
        let NewPushToken { id, hash, project, note, ttl, request, validate_only } = new;
        if let Some(reply) = self.remembered(now, request.as_ref())? {
            return Ok(Decision { reply, ..Decision::nothing() });
        }
        let name = &self.find_project(project)?.record.name;
        let mut faults = Vec::new();
        if ttl.is_some_and(|ttl| !(TTL_MIN..=defaults::PUSH_TOKEN_TTL_MAX).contains(&ttl)) {
            let text = "must be 1 minute to 400 days; without one it is good until it is deleted";
            faults.push(Violation::new("ttl", text));
        }
        if note.chars().count() > defaults::LABEL_CHARS_MAX || note.chars().any(char::is_control) {
            let text = format!("at most {} characters, none of them control", defaults::LABEL_CHARS_MAX);
            faults.push(Violation::new("note", text));
        }
        if !faults.is_empty() {
            return Err(Refusal::invalid("no push token made", faults));
        }
        if self.push_tokens.get(&id).is_some() {
            let text = "the token's id is taken; ask again";
            return Err(Refusal::new(RefusalCode::AlreadyExists, "TOKEN_EXISTS", text));
        }
        let own = self.push_tokens.of(project).count();
        if own >= defaults::PUSH_TOKENS_MAX {
            return Err(too_many(format!("\"{name}\" has {own} push tokens already; delete some")));
        }
        let all = self.push_tokens.all().len();
        if all >= defaults::PUSH_TOKENS_IN_ALL_MAX {
            return Err(too_many(format!("there are {all} push tokens already; delete some")));
        }
        let expires = ttl.map(|ttl| now.wall.plus(ttl));
        if validate_only {
            return Ok(Decision::nothing());
        }
        let (create_time, reply) = (now.wall, Reply::PushToken(id.clone()));
        let answer = Answer::PushToken(id.clone());
        let token = PushToken { id, project, hash, note, create_time, expires, by, last_used: None };
        let changes = vec![Change::Put(Record::PushToken(token))];
        let mut decision = Decision { changes, reply, ..Decision::nothing() };
        remember(now, request, answer, &mut decision);
        Ok(decision)
    }

    pub(super) fn delete_push_token(&self, id: String) -> Outcome {
        if self.push_tokens.get(&id).is_none() {
            return Err(Refusal::not_found("push token", id));
        }
        Ok(Decision { changes: vec![Change::Delete(Key::PushToken(id))], ..Decision::nothing() })
    }
}

fn too_often(project: &Project) -> Refusal {
    let text = format!(
        "{0} not pushed: more than {1} pushes came faster than one in {2} s, and no run of it waits that would do for \
         this one too; nothing is recorded, push it again",
        project.record.name,
        defaults::PUSH_BURST,
        defaults::PUSH_INTERVAL.as_secs()
    );
    Refusal::new(RefusalCode::ResourceExhausted, PUSHED_TOO_OFTEN, text)
}

fn too_many(text: String) -> Refusal {
    Refusal::new(RefusalCode::ResourceExhausted, "TOO_MANY_TOKENS", text)
}
