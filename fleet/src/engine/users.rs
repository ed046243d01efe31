//! Users and their tokens. What is proved, and how, is the shell's matter; that a fleet never loses its last admin is
//! decided here.

use std::time::Duration;

use super::{people::Outcome, state::Engine};
use crate::{
    agent::{PasswordHash, UserRecord, UserRole, UserToken},
    defaults,
    id::Name,
    input::{Decision, UserAsk},
    record::{Change, Key, Record},
    refusal::{Refusal, RefusalCode, Violation},
    time::Now,
};

/// Projects that a refusal names.
const SHOWN_MAX: usize = 5;
/// A user token's shortest life.
const TTL_MIN: Duration = Duration::from_secs(60);

impl Engine {
    pub(super) fn user_asked(&self, now: Now, ask: UserAsk) -> Outcome {
        match ask {
            UserAsk::Create { name, role, password } => self.create_user(now, name, role, password),
            UserAsk::Update { user, role, disabled, revision } => {
                self.update_user(now, &user, role, disabled, revision)
            }
            UserAsk::SetPassword { user, password, old, reset } => {
                self.set_password(now, &user, password, old.as_ref(), reset)
            }
            UserAsk::Delete { user, revision } => self.delete_user(&user, revision),
            UserAsk::LogIn { user, password, id, hash, ttl, from } => {
                let create_time = now.wall;
                let user = self.find_user(&user)?;
                check_ttl(ttl)?;
                let expires = now.wall.plus(ttl);
                let token = UserToken { id, user: user.name.clone(), hash, create_time, expires, from };
                self.log_in(now, user, &password, token)
            }
            UserAsk::RevokeToken { user, id } => self.revoke_token(&user, &id),
        }
    }

    fn find_user(&self, name: &Name) -> Result<&UserRecord, Refusal> {
        self.user(name).ok_or_else(|| Refusal::not_found("user", name))
    }

    fn create_user(&self, now: Now, name: Name, role: UserRole, password: Option<PasswordHash>) -> Outcome {
        if let Some(taken) = self.user(&name) {
            let text = format!("a user \"{}\" exists; names are unique ignoring case", taken.name);
            return Err(Refusal::new(RefusalCode::AlreadyExists, "USER_EXISTS", text));
        }
        if self.users.len() >= defaults::USERS_MAX {
            let text = format!("there are {} users already; delete some", self.users.len());
            return Err(Refusal::new(RefusalCode::ResourceExhausted, "TOO_MANY_USERS", text));
        }
        let user = UserRecord {
            name,
            role,
            disabled: false,
            password,
            certificates_since: now.wall,
            revision: 1,
            create_time: now.wall,
            update_time: now.wall,
        };
        Ok(decided(vec![Change::Put(Record::User(user))]))
    }

    fn update_user(
        &self,
        now: Now,
        name: &Name,
        role: Option<UserRole>,
        disabled: Option<bool>,
        revision: Option<u64>,
    ) -> Outcome {
        let user = self.find_user(name)?;
        check_revision(user, revision)?;
        let changed = UserRecord {
            role: role.unwrap_or(user.role),
            disabled: disabled.unwrap_or(user.disabled),
            revision: user.revision + 1,
            update_time: now.wall,
            ..user.clone()
        };
        if !changed.is_acting_admin() {
            self.check_admin_left(user, "not changed")?;
        }
        let mut changes = if changed.disabled { self.without_tokens(name) } else { Vec::new() };
        changes.push(Change::Put(Record::User(changed)));
        Ok(decided(changes))
    }

    fn set_password(
        &self,
        now: Now,
        name: &Name,
        password: PasswordHash,
        old: Option<&PasswordHash>,
        reset: bool,
    ) -> Outcome {
        let user = self.find_user(name)?;
        if !reset && user.password.as_ref() != old {
            return Err(Refusal::stale("user", name));
        }
        let certificates_since = if reset { now.wall } else { user.certificates_since };
        let changed = UserRecord {
            password: Some(password),
            certificates_since,
            revision: user.revision + 1,
            update_time: now.wall,
            ..user.clone()
        };
        let mut changes = self.without_tokens(name);
        changes.push(Change::Put(Record::User(changed)));
        Ok(decided(changes))
    }

    fn delete_user(&self, name: &Name, revision: Option<u64>) -> Outcome {
        let user = self.find_user(name)?;
        check_revision(user, revision)?;
        self.check_admin_left(user, "not deleted")?;
        let owned =
            self.projects_by_name().filter(|project| project.record.spec.owner.as_ref() == Some(name));
        let owned: Vec<String> = owned.map(|project| project.record.name.to_string()).collect();
        if let Some(first) = owned.first() {
            let shown = owned.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
            let more = if owned.len() > SHOWN_MAX { " and others" } else { "" };
            let text = format!(
                "user \"{0}\" not deleted: owns {shown}{more}; give them to somebody else first (mirrorctl project edit \
                 {first} --owner NAME), or only shut the user out (mirrorctl user disable {0})",
                user.name
            );
            return Err(Refusal::precondition("USER_OWNS_PROJECTS", text));
        }
        let mut changes = self.without_tokens(name);
        changes.push(Change::Delete(Key::User(name.folded())));
        Ok(decided(changes))
    }

    /// Nobody could enter an admin any more, except on the coordinator's own host.
    fn check_admin_left(&self, leaving: &UserRecord, what: &str) -> Result<(), Refusal> {
        let another = |user: &&UserRecord| user.is_acting_admin() && user.name != leaving.name;
        if !leaving.is_acting_admin() || self.users.values().any(|user| another(&user)) {
            return Ok(());
        }
        let text = format!(
            "user \"{}\" {what}: it is the last admin who is not disabled; make another one first (mirrorctl user \
             set-role NAME admin)",
            leaving.name
        );
        Err(Refusal::precondition("LAST_ADMIN", text))
    }

    /// The end of all tokens of a user.
    fn without_tokens(&self, user: &Name) -> Vec<Change> {
        self.tokens_of(user)
            .into_iter()
            .map(|token| Change::Delete(Key::UserToken(token.id.clone())))
            .collect()
    }

    fn log_in(&self, now: Now, user: &UserRecord, password: &PasswordHash, token: UserToken) -> Outcome {
        if user.disabled || user.password.as_ref() != Some(password) {
            // Disabled, or given another password, while this one was being compared.
            return Err(Refusal::stale("user", &user.name));
        }
        if self.user_tokens.contains_key(&token.id) {
            let text = "the token's id is taken; ask again";
            return Err(Refusal::new(RefusalCode::AlreadyExists, "TOKEN_EXISTS", text));
        }
        let (expired, mut alive): (Vec<&UserToken>, Vec<&UserToken>) =
            self.tokens_of(&user.name).into_iter().partition(|token| token.expires <= now.wall);
        // The oldest make room: whoever has the password is not kept out by tokens that nobody has any more.
        let surplus = (alive.len() + 1).saturating_sub(defaults::USER_TOKENS_MAX);
        let gone = expired.into_iter().chain(alive.drain(..surplus));
        let mut changes: Vec<Change> =
            gone.map(|token| Change::Delete(Key::UserToken(token.id.clone()))).collect();
        changes.push(Change::Put(Record::UserToken(token)));
        Ok(decided(changes))
    }

    fn revoke_token(&self, user: &Name, id: &str) -> Outcome {
        if self.user_token(id).is_none_or(|token| token.user != *user) {
            return Err(Refusal::not_found("token", id));
        }
        Ok(decided(vec![Change::Delete(Key::UserToken(id.to_owned()))]))
    }
}

fn decided(changes: Vec<Change>) -> Decision {
    Decision { changes, ..Decision::nothing() }
}

fn check_ttl(ttl: Duration) -> Result<(), Refusal> {
    if (TTL_MIN..=defaults::USER_TOKEN_TTL_MAX).contains(&ttl) {
        return Ok(());
    }
    Err(Refusal::invalid("not logged in", vec![Violation::new("ttl", "must be 1 minute to 30 days")]))
}

fn check_revision(user: &UserRecord, revision: Option<u64>) -> Result<(), Refusal> {
    match revision {
        Some(revision) if revision != user.revision => Err(Refusal::stale("user", &user.name)),
        Some(_) | None => Ok(()),
    }
}
