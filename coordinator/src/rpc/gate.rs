//! Who calls (by certificate or token, deny list and the fleet's own records), and whether he may, by the table. Decided
//! anew for each request: a connection outlives a revocation, a request does not. Knows no message of any service: whose
//! a thing is that a request names, `access.rs` says.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, SubsecRound as _, Utc};
use fleet::{
    agent::{LOCAL_ROOT, UserRole},
    id::{AgentUid, Name, ProjectUid},
    refusal::{Refusal, RefusalCode},
};
use http::{HeaderMap, HeaderValue};
use mirror_certs::{BACKDATE, DenyList, Identity, Peer, PushToken, UserToken};
use mirror_proto::convert;
use tokio_util::sync::CancellationToken;

use super::{
    access::Scope,
    policy::{self, Rule, Standing, Verdict},
};
use crate::{
    authority::Authority,
    config::Reflection,
    connections::PeerInfo,
    driver::Driver,
    open_streams::{OpenStream, OpenStreams},
};

/// The header of a caller's own id of its request.
const REQUEST_ID: &str = "x-request-id";

/// Who calls, where nobody in particular does.
pub const NOBODY: &str = "nobody";

/// Streams that users open: they end when their user is shut out, or what they were allowed by ends.
pub const STREAMS: [&str; 6] = [
    "/mirror.v1.RunService/WatchRun",
    "/mirror.v1.RunService/TailRunLog",
    "/mirror.v1.FleetService/WatchAuditEvents",
    "/mirror.v1.FleetService/Backup",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// What the `authorization` header of a token begins with.
const BEARER: &str = "bearer ";
/// The reason of a certificate that a reset, or an earlier user's end, made worthless; a token may stand in for it.
const OUTDATED: &str = "CERTIFICATE_OUTDATED";
/// Characters of a token's hash that are its id.
const TOKEN_ID_CHARS: usize = 16;

/// Who calls, known to be of this fleet and let through by the table. In the extensions of each request of a method
/// that is not open to all; [`super::caller`] reads it.
#[derive(Debug, Clone)]
pub enum Caller {
    /// An agent: its uid, its name, and its connection.
    Agent(AgentUid, Name, PeerInfo),
    /// A user.
    User {
        /// As entered in the fleet.
        name: Name,
        /// What the user may do.
        role: UserRole,
        /// What the user may touch by this method.
        scope: Scope,
        /// By what the user is known.
        proof: Proof,
    },
    /// A program with a push token.
    PushToken {
        /// Which; no secret.
        id: String,
        /// The one project that it pushes.
        project: ProjectUid,
    },
    /// Whoever opened the coordinator's own socket: root, or the coordinator's own account. May do what admins may.
    LocalRoot,
}

/// By what a user is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A client certificate.
    Certificate {
        /// When it ends.
        expires: DateTime<Utc>,
    },
    /// A token.
    Token {
        /// Which; no secret.
        id: String,
        /// When it ends.
        expires: DateTime<Utc>,
    },
}

impl Proof {
    /// When it ends.
    #[must_use]
    pub fn expires(&self) -> DateTime<Utc> {
        match self {
            Self::Certificate { expires } | Self::Token { expires, .. } => *expires,
        }
    }

    /// The token's id.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        match self {
            Self::Certificate { .. } => None,
            Self::Token { id, .. } => Some(id),
        }
    }
}

impl Caller {
    fn standing(&self) -> Standing {
        match self {
            Self::Agent(..) => Standing::Agent,
            Self::PushToken { .. } => Standing::PushToken,
            Self::User { role, .. } => Standing::User(*role),
            Self::LocalRoot => Standing::User(UserRole::Admin),
        }
    }

    /// Whether a certificate speaks for this user.
    fn is_user_of(&self, peer: &Peer) -> bool {
        match (self, &peer.identity) {
            (Self::User { name, .. }, Identity::User(certified)) => {
                name.as_str().eq_ignore_ascii_case(certified.as_str())
            }
            _ => false,
        }
    }

    /// The user, as certificates name him.
    fn identity(&self) -> Option<Identity> {
        match self {
            Self::User { name, .. } => name.as_str().parse().ok().map(Identity::User),
            Self::Agent(..) | Self::PushToken { .. } | Self::LocalRoot => None,
        }
    }

    /// The same caller with what he may touch by this method.
    fn scoped(mut self, method: &str) -> Self {
        if let Self::User { role, scope, .. } = &mut self {
            *scope = match policy::rule(method) {
                Some(Rule::Owner | Rule::Push) if *role < UserRole::Operator => Scope::OwnProjects,
                Some(Rule::Oneself) if *role < UserRole::Admin => Scope::Oneself,
                _ => Scope::Whole,
            };
        }
        self
    }
}

/// The id of the token with this hash.
#[must_use]
pub fn token_id(hash: &str) -> &str {
    hash.get(..TOKEN_ID_CHARS).unwrap_or(hash)
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent(_, name, _) => write!(f, "agents/{name}"),
            Self::User { name, .. } => write!(f, "users/{name}"),
            Self::PushToken { id, .. } => f.write_str(&convert::push_token_name(id)),
            Self::LocalRoot => f.write_str(LOCAL_ROOT),
        }
    }
}

/// What the layer asks.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Agents and users of the fleet.
    pub driver: Driver,
    /// Who is refused for ever.
    pub deny: Arc<DenyList>,
    /// Is told which certificates are in use.
    pub ca: Arc<Authority>,
    /// Who may use reflection.
    pub reflection: Reflection,
    /// The coordinator stops: streams that go on for as long as their readers like end.
    pub stopping: CancellationToken,
    /// Streams of users, to be ended with what they were allowed by.
    pub streams: Arc<OpenStreams>,
}

/// How a caller was let in, to be judged once more when the message is there: between head and message a caller may take
/// his time, and may be shut out meanwhile. In the extensions of each request of a [`Caller`].
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    pub(super) gate: Arc<Gate>,
    pub(super) method: &'static str,
    pub(super) info: Option<PeerInfo>,
    /// Marked as sensitive: `Debug` hides it.
    pub(super) authorization: Option<HeaderValue>,
}

impl Admitted {
    /// Whether the caller would be let in now as well.
    ///
    /// # Errors
    /// As [`Gate::admit`].
    pub(super) fn still(&self) -> Result<(), Refusal> {
        let authorization = self.authorization.as_ref().map(HeaderValue::as_bytes);
        self.gate.admit(self.method, self.info.as_ref(), authorization).map(drop)
    }
}

impl Gate {
    /// Who calls and whether he may; `None`: nobody in particular, on an open method. `authorization` is the header, where
    /// there is one.
    ///
    /// # Errors
    /// UNAUTHENTICATED without an identity, PERMISSION_DENIED where the table, the deny list or the fleet's records
    /// say no.
    pub fn admit(
        &self,
        method: &str,
        info: Option<&PeerInfo>,
        authorization: Option<&[u8]>,
    ) -> Result<Option<Caller>, Refusal> {
        let caller = self.caller(info, authorization);
        let standing = match &caller {
            Ok(Some(caller)) => caller.standing(),
            Ok(None) | Err(_) => Standing::Nobody,
        };
        match (policy::decide(method, standing, self.reflection), caller) {
            // What is open to nobody is open to the revoked too: they learn nothing more by it.
            (Verdict::Allowed, caller) => Ok(caller.unwrap_or(None).map(|caller| caller.scoped(method))),
            (_, Err(refusal)) => Err(refusal),
            (Verdict::NoIdentity, Ok(_)) => Err(Refusal::new(
                RefusalCode::Unauthenticated,
                "NO_IDENTITY",
                format!(
                    "{} needs a client certificate or a token of this fleet; people log in (mirrorctl login), agents \
                     enrol (mirror-agent enroll)",
                    short(method)
                ),
            )),
            (Verdict::Forbidden(why), Ok(caller)) => Err(forbidden(method, caller.as_ref(), why)),
        }
    }

    /// Whom connection and header speak for; both, where both speak.
    fn caller(
        &self,
        info: Option<&PeerInfo>,
        authorization: Option<&[u8]>,
    ) -> Result<Option<Caller>, Refusal> {
        let peer = info.and_then(|info| info.peer.as_ref().map(|peer| (info, peer)));
        let token = authorization.map(|header| self.identify_token(header)).transpose()?;
        let caller = match (peer, token) {
            (Some((info, peer)), None) => Some(self.identify(info, peer)?),
            (Some((info, peer)), Some(by_token)) => {
                match self.identify(info, peer) {
                    Ok(_) => {}
                    Err(refusal) if refusal.reason == OUTDATED => {}
                    Err(refusal) => return Err(refusal),
                }
                if !by_token.is_user_of(peer) {
                    let text = format!(
                        "the certificate is of {} and the token of {by_token}; send one of the two, or both of one user",
                        peer.identity
                    );
                    return Err(denied("TWO_IDENTITIES", text));
                }
                Some(by_token)
            }
            (None, Some(by_token)) => {
                if let (Some(info), Some(user)) = (info, by_token.identity()) {
                    info.vouch(&user);
                }
                Some(by_token)
            }
            (None, None) => info.and_then(|info| info.local_uid).map(|_| Caller::LocalRoot),
        };
        Ok(caller)
    }

    /// The caller's own id of its request, where it sent one that can be read; else one of ours.
    pub(super) fn request_id(&self, headers: &HeaderMap) -> String {
        let sent = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let sent = sent.and_then(|text| convert::parse_request_id(REQUEST_ID, text).ok().flatten());
        sent.unwrap_or_else(|| format!("{:016x}", self.driver.now().entropy))
    }

    fn identify(&self, info: &PeerInfo, peer: &Peer) -> Result<Caller, Refusal> {
        if self.deny.is_denied(peer) {
            let text =
                format!("the certificate of {} is revoked for ever; do not come back with it", peer.identity);
            return Err(denied("CERTIFICATE_REVOKED", text));
        }
        if !self.ca.trusts(peer) {
            let text = format!(
                "the CA that issued the certificate of {} is trusted no more; agents enrol again, people log in again",
                peer.identity
            );
            return Err(denied("CA_RETIRED", text));
        }
        if self.driver.now().wall.to_utc() >= peer.not_after {
            // A connection outlives its certificate; a request does not.
            let text = format!("the certificate of {} expired at {}", peer.identity, peer.not_after);
            return Err(Refusal::new(RefusalCode::Unauthenticated, "CERTIFICATE_EXPIRED", text));
        }
        let caller = match &peer.identity {
            Identity::Agent(name) => self.identify_agent(name.as_str(), info, peer),
            Identity::User(name) => self.identify_user(name.as_str(), peer),
            Identity::Server => Err(denied("NOT_ALLOWED", "a coordinator calls nothing".to_owned())),
        }?;
        self.ca.seen(peer, self.driver.now().wall.to_utc());
        Ok(caller)
    }

    fn identify_agent(&self, name: &str, info: &PeerInfo, peer: &Peer) -> Result<Caller, Refusal> {
        let view = self.driver.view();
        let known = name.parse().ok().and_then(|name: Name| view.agent_named(&name));
        let Some(agent) = known else {
            let text = format!("agents/{name} is not of this fleet (any more); enrol its host again");
            return Err(denied("UNKNOWN_AGENT", text));
        };
        if agent.revoked.is_some() {
            let text = format!("agents/{name} is revoked; enrol its host under another name");
            return Err(denied("AGENT_REVOKED", text));
        }
        if agent.key_hash != super::enrollment::key_hash(&peer.spki_hash) {
            let text = format!(
                "agents/{name} was enrolled anew with another key; this certificate is no longer good"
            );
            return Err(denied("CERTIFICATE_REPLACED", text));
        }
        Ok(Caller::Agent(agent.uid, agent.name.clone(), info.clone()))
    }

    fn identify_user(&self, name: &str, peer: &Peer) -> Result<Caller, Refusal> {
        let view = self.driver.view();
        let known = name.parse().ok().and_then(|name: Name| view.user(&name));
        let Some(user) = known else {
            let text = format!("users/{name} is no user of this fleet (any more); ask an admin");
            return Err(denied("UNKNOWN_USER", text));
        };
        if user.disabled {
            return Err(denied("USER_DISABLED", format!("users/{name} is disabled; ask an admin")));
        }
        // Certificates count in seconds, and begin earlier than they were made.
        if peer.not_before + BACKDATE < user.certificates_since.to_utc().trunc_subsecs(0) {
            let text = format!(
                "the certificate of users/{name} was made before the user's password was reset, or for another user of \
                 that name; log in (mirrorctl login {name}) and get a new one (mirrorctl cert issue)"
            );
            return Err(denied(OUTDATED, text));
        }
        let proof = Proof::Certificate { expires: peer.not_after };
        Ok(Caller::User { name: user.name.clone(), role: user.role, scope: Scope::Whole, proof })
    }

    /// Whose token is in this header. Why one is not good is told to nobody.
    fn identify_token(&self, header: &[u8]) -> Result<Caller, Refusal> {
        let text = std::str::from_utf8(header).ok().and_then(|text| {
            let scheme = text.get(..BEARER.len())?;
            scheme.eq_ignore_ascii_case(BEARER).then(|| &text[BEARER.len()..])
        });
        match text.map(str::parse::<PushToken>) {
            Some(Ok(token)) => self.identify_push_token(&token),
            Some(Err(_)) | None => self.identify_user_token(text),
        }
    }

    /// What pushes by this token.
    fn identify_push_token(&self, token: &PushToken) -> Result<Caller, Refusal> {
        let (view, now) = (self.driver.view(), self.driver.now().wall);
        let found = view.push_token(token_id(&token.hash()));
        let good = found.filter(|record| token.matches(&record.hash) && record.is_good(now));
        let record = good.ok_or_else(|| {
            let text = "the push token is not good (any more): it ended or was deleted, or its project was; an admin \
                        makes another one: mirrorctl push-token create PROJECT";
            Refusal::new(RefusalCode::Unauthenticated, "TOKEN_NOT_GOOD", text)
        })?;
        Ok(Caller::PushToken { id: record.id.clone(), project: record.project })
    }

    /// Who logged in by this token.
    fn identify_user_token(&self, text: Option<&str>) -> Result<Caller, Refusal> {
        let bad = || {
            let text = "the token is not good (any more): it ended, was revoked, or its user was disabled or given \
                        another password; log in again: mirrorctl login";
            Refusal::new(RefusalCode::Unauthenticated, "TOKEN_NOT_GOOD", text)
        };
        let token: UserToken = text.ok_or_else(bad)?.parse().map_err(|_| bad())?;
        let view = self.driver.view();
        let now = self.driver.now().wall;
        let record = view.user_token(token_id(&token.hash())).ok_or_else(bad)?;
        if !token.matches(&record.hash) || record.expires <= now {
            return Err(bad());
        }
        let user = view.user(&record.user).filter(|user| !user.disabled).ok_or_else(bad)?;
        let identity = user.name.as_str().parse().map(Identity::User).map_err(|_| bad())?;
        if self.deny.is_identity_denied(&identity) {
            return Err(bad());
        }
        let proof = Proof::Token { id: record.id.clone(), expires: record.expires.to_utc() };
        Ok(Caller::User { name: user.name.clone(), role: user.role, scope: Scope::Whole, proof })
    }

    /// How long it is until this time.
    pub(super) fn left(&self, until: DateTime<Utc>) -> Duration {
        (until - self.driver.now().wall.to_utc()).to_std().unwrap_or_default()
    }

    /// Enters a stream of a user among those that can be ended; `None`: it is none. A caller who was shut out between
    /// being let in and being entered is refused after all.
    pub(super) fn enter_stream(
        &self,
        method: &str,
        caller: Option<&Caller>,
        cuts_before: u64,
        admit: impl FnOnce() -> Result<Option<Caller>, Refusal>,
    ) -> Result<Option<(OpenStream, DateTime<Utc>)>, Refusal> {
        let Some(Caller::User { name, proof, .. }) = caller.filter(|_| STREAMS.contains(&method)) else {
            return Ok(None);
        };
        let stream = self.streams.enter(name, proof.token());
        if self.streams.cuts() != cuts_before {
            admit()?;
        }
        Ok(Some((stream, proof.expires())))
    }
}

fn forbidden(method: &str, caller: Option<&Caller>, why: &str) -> Refusal {
    let text = match caller {
        Some(caller @ Caller::User { role, .. }) => format!(
            "{caller} with the role {} may not call {}: {why}",
            policy::role_name(*role),
            short(method)
        ),
        Some(caller) => format!("{caller} may not call {}: {why}", short(method)),
        None => format!("you may not call {}: {why}", short(method)),
    };
    denied("NOT_ALLOWED", text)
}

fn denied(reason: &'static str, text: String) -> Refusal {
    Refusal::new(RefusalCode::PermissionDenied, reason, text)
}

/// `ProjectService.RunProject`, of a full method name.
pub(super) fn short(method: &str) -> String {
    method.trim_start_matches("/mirror.v1.").trim_start_matches('/').replace('/', ".")
}
