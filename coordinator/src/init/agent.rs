//! An agent on the coordinator's own host, made together with the fleet: it needs no join token, because whoever
//! makes the fleet has the CA. It is entered through the engine all the same, as every agent is.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use fleet::{
    agent::TokenNames,
    id::Name,
    input::{AgentInput, Ask, Input, Person},
    time::Wall,
};
use mirror_certs::{AGENT_LIFE, Existing, Identity, JoinToken, KeyPair, write_private, write_public};

use super::{InitError, Plan, make_folder, put};
use crate::{authority::Authority, driver::Driver, identity::host_name, rpc::enrollment::key_hash};

/// Folder of the agent, in the new folder.
pub(super) const AGENT: &str = "agent";
/// The agent's configuration.
const AGENT_FILE: &str = "agent.toml";
/// The name of an agent whose host has a name that is none for agents.
const NAME_DEFAULT: &str = "local";

/// Makes the agent's key, certificate and configuration, and enters it.
pub(super) async fn make(
    plan: &Plan,
    roots: &[(Name, PathBuf)],
    ca: &Authority,
    driver: &Driver,
    now: DateTime<Utc>,
) -> Result<PathBuf, InitError> {
    let name = short_host_name();
    let identity = Identity::Agent(name.as_str().parse()?);
    let key = KeyPair::generate()?;
    let issued = ca.issue_from_csr(&key.csr_pem()?, &identity, now, AGENT_LIFE)?;
    let token_hash = JoinToken::generate().map_err(|_| InitError::Random)?.hash();
    let token = Ask::CreateJoinToken {
        id: "init".to_owned(),
        hash: token_hash.clone(),
        names: TokenNames::One(name.clone()),
        uses: 1,
        ttl: fleet::defaults::JOIN_TOKEN_TTL,
        networks: Vec::new(),
    };
    put(driver, Input::Person(Person { by: plan.admin.to_string(), ask: token })).await?;
    let enroll = AgentInput::Enroll {
        token_hash,
        name: name.clone(),
        labels: std::collections::BTreeMap::new(),
        key_hash: key_hash(&issued.spki_hash),
        serial: issued.serial.to_string(),
        expires: Wall::from(issued.not_after),
        from: None,
    };
    put(driver, Input::Agent(enroll)).await?;
    let folder = plan.folder.join(AGENT);
    make_folder(&folder)?;
    let file = |name: &str| folder.join(name);
    let both = zeroize::Zeroizing::new(format!("{}{}", key.pem().as_str(), issued.cert_pem));
    write_private(&file("identity.pem"), &both, Existing::Refuse)?;
    write_public(&file("ca.pem"), &ca.bundle().to_pem(), Existing::Refuse)?;
    write_public(&file(AGENT_FILE), &agent_text(&name, &plan.server, roots), Existing::Refuse)?;
    Ok(file(AGENT_FILE))
}

fn agent_text(name: &Name, server: &str, roots: &[(Name, PathBuf)]) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let path = |path: &Path| quoted(&path.display().to_string());
    let roots: String =
        roots.iter().map(|(root, at)| format!("{} = {}\n", quoted(root.as_str()), path(at))).collect();
    format!(
        "# What this host lets the fleet do. All keys: mirror-agent run --help\n\
         name = {}\ncoordinators = [{}]\n\n[roots]\n{roots}",
        quoted(name.as_str()),
        quoted(server),
    )
}

/// The first label of the host's name, where it is a name for agents.
fn short_host_name() -> Name {
    let host = host_name();
    let short = host.split('.').next().unwrap_or_default();
    short.parse().unwrap_or_else(|_| NAME_DEFAULT.parse().expect("it is a name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_file_is_toml_whatever_the_paths() {
        let roots = [("a1".parse().unwrap(), PathBuf::from("/srv/mir\"ror"))];
        let text = agent_text(&"ftp1".parse().unwrap(), "[::1]:7443", &roots);
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["coordinators"][0].as_str(), Some("[::1]:7443"));
        assert_eq!(table["roots"]["a1"].as_str(), Some("/srv/mir\"ror"));
    }
}
