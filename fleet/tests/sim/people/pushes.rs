//! Pushes, and the tokens by which programs push.

use std::time::Duration;

use fleet::{
    id::ProjectUid,
    input::{Ask, NewPushToken, Push},
};

use crate::world::World;

impl World {
    /// By a user, or by a token: mostly one of this project, which may have expired, or be deleted.
    pub(super) fn push(&mut self, project: ProjectUid) -> Ask {
        let any = self.rng.chance(50);
        let tokens = self.people.push_tokens.iter().filter(|(_, token)| any || token.project == project);
        let tokens: Vec<String> = tokens.map(|(id, _)| id.clone()).collect();
        let token = if self.rng.chance(700) { self.rng.pick(&tokens).cloned() } else { None };
        let over_limit = self.rng.chance(250);
        Ask::Push(Push { project, token, over_limit, request: None, traceparent: String::new() })
    }

    /// Makes a token, which may be good for a while only; or deletes one.
    pub(super) fn token(&mut self, project: ProjectUid) -> Option<Ask> {
        if self.rng.chance(300) {
            let left = self.people.push_tokens.iter().filter(|(_, token)| !token.doomed);
            let left: Vec<String> = left.map(|(id, _)| id.clone()).collect();
            return Some(Ask::DeletePushToken { id: self.rng.pick(&left)?.clone() });
        }
        let id = format!("push{}", self.next_id());
        let ttl = self.rng.chance(500).then(|| Duration::from_secs(self.rng.between(60, 10_000)));
        let (hash, note) = (format!("hash of {id}"), String::new());
        let (request, validate_only) = (None, false);
        let token = NewPushToken { id, hash, project, note, ttl, request, validate_only };
        Some(Ask::CreatePushToken(token))
    }
}
