//! Who may call what: one table over full method names. A method without a row is refused, and a test walks the
//! served descriptor so that a new rpc without a row cannot be merged.
//!
//! Knows names and roles only; `layer.rs` asks it once for each request, before anything of the request is read.

use fleet::agent::UserRole;

use crate::config::Reflection;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Anybody who reaches the port.
    Open,
    /// As the key `reflection` says.
    Reflection,
    /// Agents, each for itself.
    Agent,
    /// Users of at least this role.
    User(UserRole),
    /// Owners of the project (`access.rs` looks which), and users of at least [`UserRole::Operator`].
    Owner,
    /// Users, each for himself (`access.rs` looks whom the request names), and admins for all.
    Oneself,
}

/// Who calls, as far as the table is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No certificate.
    Nobody,
    /// An agent of this fleet.
    Agent,
    /// A user with this role.
    User(UserRole),
}

/// What the table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allowed,
    /// Nobody in particular calls, and that is not enough.
    NoIdentity,
    /// The caller is known and may not; what would be needed.
    Forbidden(&'static str),
}

const VIEWER: Rule = Rule::User(UserRole::Viewer);
const OPERATOR: Rule = Rule::User(UserRole::Operator);
const ADMIN: Rule = Rule::User(UserRole::Admin);

/// The table. Order: service by service, as in the contract.
pub const TABLE: &[(&str, Rule)] = &[
    ("/mirror.v1.ProjectService/CreateProject", OPERATOR),
    ("/mirror.v1.ProjectService/GetProject", VIEWER),
    ("/mirror.v1.ProjectService/ListProjects", VIEWER),
    ("/mirror.v1.ProjectService/UpdateProject", OPERATOR),
    ("/mirror.v1.ProjectService/DeleteProject", OPERATOR),
    ("/mirror.v1.ProjectService/PauseProject", Rule::Owner),
    ("/mirror.v1.ProjectService/ResumeProject", Rule::Owner),
    ("/mirror.v1.ProjectService/RunProject", Rule::Owner),
    ("/mirror.v1.ProjectService/PromoteOrigin", OPERATOR),
    ("/mirror.v1.ProjectService/ReseedPlacement", OPERATOR),
    ("/mirror.v1.ProjectService/MovePlacement", OPERATOR),
    ("/mirror.v1.ProjectService/SwitchUpstream", OPERATOR),
    ("/mirror.v1.ProjectService/WhyProject", VIEWER),
    ("/mirror.v1.ProjectService/PreviewSchedule", VIEWER),
    ("/mirror.v1.ProjectService/CheckProject", OPERATOR),
    ("/mirror.v1.ProjectService/PlanProjects", VIEWER),
    ("/mirror.v1.ProjectService/ApplyProjects", OPERATOR),
    ("/mirror.v1.ProjectService/ExportProjects", VIEWER),
    ("/mirror.v1.RunService/GetRun", VIEWER),
    ("/mirror.v1.RunService/ListRuns", VIEWER),
    ("/mirror.v1.RunService/ListAttempts", VIEWER),
    ("/mirror.v1.RunService/WatchRun", VIEWER),
    ("/mirror.v1.RunService/TailRunLog", VIEWER),
    ("/mirror.v1.RunService/CancelRun", Rule::Owner),
    ("/mirror.v1.RunService/ApproveRun", Rule::Owner),
    ("/mirror.v1.AgentService/GetAgent", VIEWER),
    ("/mirror.v1.AgentService/ListAgents", VIEWER),
    ("/mirror.v1.AgentService/DrainAgent", OPERATOR),
    ("/mirror.v1.AgentService/UndrainAgent", OPERATOR),
    ("/mirror.v1.AgentService/RevokeAgent", ADMIN),
    // To revoke the old one by the way takes what RevokeAgent takes.
    ("/mirror.v1.AgentService/ReplaceAgent", OPERATOR),
    ("/mirror.v1.AgentService/DeleteAgent", ADMIN),
    ("/mirror.v1.AgentService/CreateJoinToken", ADMIN),
    ("/mirror.v1.AgentService/ListJoinTokens", ADMIN),
    ("/mirror.v1.AgentService/DeleteJoinToken", ADMIN),
    ("/mirror.v1.EnrollmentService/Enroll", Rule::Open),
    ("/mirror.v1.EnrollmentService/Renew", Rule::Open),
    ("/mirror.v1.SessionService/OpenSession", Rule::Agent),
    ("/mirror.v1.FleetService/GetStatus", VIEWER),
    ("/mirror.v1.FleetService/Freeze", OPERATOR),
    ("/mirror.v1.FleetService/Thaw", OPERATOR),
    ("/mirror.v1.FleetService/ListAuditEvents", ADMIN),
    ("/mirror.v1.FleetService/WatchAuditEvents", ADMIN),
    ("/mirror.v1.FleetService/Backup", ADMIN),
    ("/mirror.v1.UpstreamService/ListUpstreams", VIEWER),
    ("/mirror.v1.UpstreamService/UpdateUpstream", OPERATOR),
    ("/mirror.v1.UpstreamService/ReplaceUpstream", OPERATOR),
    ("/mirror.v1.UserService/CreateUser", ADMIN),
    ("/mirror.v1.UserService/GetUser", Rule::Oneself),
    ("/mirror.v1.UserService/ListUsers", ADMIN),
    ("/mirror.v1.UserService/UpdateUser", ADMIN),
    ("/mirror.v1.UserService/SetPassword", Rule::Oneself),
    ("/mirror.v1.UserService/DeleteUser", ADMIN),
    ("/mirror.v1.UserService/Login", Rule::Open),
    ("/mirror.v1.UserService/Logout", VIEWER),
    ("/mirror.v1.UserService/ListTokens", Rule::Oneself),
    ("/mirror.v1.UserService/RevokeToken", Rule::Oneself),
    ("/mirror.v1.UserService/WhoAmI", VIEWER),
    ("/mirror.v1.UserService/IssueCertificate", Rule::Oneself),
    ("/grpc.health.v1.Health/Check", Rule::Open),
    ("/grpc.health.v1.Health/Watch", Rule::Open),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Rule::Reflection),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Rule::Reflection),
];

/// The row of a full method name, `/package.Service/Method`.
#[must_use]
pub fn rule(method: &str) -> Option<Rule> {
    TABLE.iter().find(|(name, _)| *name == method).map(|(_, rule)| *rule)
}

/// The table's own text for a method's name, which is bounded and known; others have one name in logs.
#[must_use]
pub fn name(path: &str) -> &'static str {
    TABLE.iter().find(|(name, _)| *name == path).map_or("unknown method", |(name, _)| name)
}

/// Whether people change something by it: such calls are in the audit log, done or refused.
#[must_use]
pub fn changes_something(method: &str) -> bool {
    match rule(method) {
        Some(Rule::Owner) => true,
        Some(Rule::Oneself) => {
            ["/SetPassword", "/RevokeToken", "/IssueCertificate"].iter().any(|name| method.ends_with(name))
        }
        Some(Rule::User(least)) => {
            let looks_only =
                ["/ListJoinTokens", "/CheckProject", "/ListUsers", "/ListAuditEvents", "/WatchAuditEvents"]
                    .iter()
                    .any(|name| method.ends_with(name));
            least >= UserRole::Operator && !looks_only
        }
        Some(Rule::Open | Rule::Reflection | Rule::Agent) | None => false,
    }
}

/// What the table says about this caller and this method. A method without a row is refused.
#[must_use]
pub fn decide(method: &str, standing: Standing, reflection: Reflection) -> Verdict {
    let Some(rule) = rule(method) else {
        return Verdict::Forbidden("nobody may call it: this server has no such method");
    };
    let rule = match (rule, reflection) {
        (Rule::Reflection, Reflection::Open) => Rule::Open,
        (Rule::Reflection, Reflection::Users) => VIEWER,
        (Rule::Reflection, Reflection::Off) => {
            return Verdict::Forbidden("reflection is switched off in this coordinator's configuration");
        }
        (rule, _) => rule,
    };
    match (rule, standing) {
        (Rule::Open, _) | (Rule::Agent, Standing::Agent) => Verdict::Allowed,
        (_, Standing::Nobody) => Verdict::NoIdentity,
        (Rule::Agent, Standing::User(_)) => Verdict::Forbidden("only agents may, each for itself"),
        (Rule::User(_) | Rule::Owner | Rule::Oneself | Rule::Reflection, Standing::Agent) => {
            Verdict::Forbidden("agents may not; it is for users")
        }
        (Rule::User(least), Standing::User(role)) if role >= least => Verdict::Allowed,
        (Rule::Owner, Standing::User(role)) if role >= UserRole::Owner => Verdict::Allowed,
        (Rule::Oneself, Standing::User(_)) => Verdict::Allowed,
        (Rule::User(least), Standing::User(_)) => Verdict::Forbidden(needs(least)),
        (Rule::Owner, Standing::User(_)) => {
            Verdict::Forbidden("it needs the role operator or admin, or owner for projects of your own")
        }
        (Rule::Reflection, Standing::User(_)) => Verdict::Forbidden(needs(UserRole::Viewer)),
    }
}

fn needs(least: UserRole) -> &'static str {
    match least {
        UserRole::Viewer => "it needs the role viewer or more",
        UserRole::Owner => "it needs the role owner or more",
        UserRole::Operator => "it needs the role operator or admin",
        UserRole::Admin => "it needs the role admin",
    }
}

/// A role's name, for people.
#[must_use]
pub fn role_name(role: UserRole) -> &'static str {
    match role {
        UserRole::Viewer => "viewer",
        UserRole::Owner => "owner",
        UserRole::Operator => "operator",
        UserRole::Admin => "admin",
    }
}
