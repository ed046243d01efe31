//! `mirrorctl agent`.

use mirror_proto::v1;
use tonic::{Code, Status};

use super::several::{self, Done, Words};
use super::{agents_by, of_agent};
use crate::app::App;
use crate::cli::{AgentCommand, AgentFlags, AgentListArgs, AgentsArg};
use crate::confirm::{Wanted, confirm};
use crate::exit::Exit;
use crate::fault::{Fault, Faults, Outcome};
use crate::{names, request, text};

pub(super) async fn run(app: &App, command: AgentCommand) -> Outcome<Exit> {
    match command {
        AgentCommand::List(args) => list(app, &args).await,
        AgentCommand::Show { agent } => show(app, &agent).await,
        AgentCommand::Create { agent, flags, dry_run } => create(app, &agent, &flags, dry_run).await,
        AgentCommand::Set { agent, flags, dry_run } => set(app, &agent, &flags, dry_run).await,
        AgentCommand::Drain(agents) => drain(app, &agents).await,
        AgentCommand::Undrain(agents) => undrain(app, &agents).await,
        AgentCommand::Revoke { agent, reason } => revoke(app, &agent, reason).await,
        AgentCommand::Replace { old, new, dry_run, no_reseed, revoke, reason } => {
            let request = v1::ReplaceAgentRequest {
                name: names::agent(&old),
                replacement: names::agent(&new),
                no_reseed,
                revoke,
                reason,
                validate_only: dry_run,
            };
            replace(app, request).await
        }
        AgentCommand::Delete { agent } => delete(app, &agent).await,
    }
}

async fn list(app: &App, args: &AgentListArgs) -> Outcome<Exit> {
    let mut faults = Faults::default();
    let (filter, selector) = request::agent_filter(args, &mut faults);
    faults.finish("nothing listed", "mirrorctl agent list --help")?;
    let order = if args.reverse { "name desc" } else { "" };
    let client = app.connect().await?;
    let mut agents = agents_by(&client, &filter, order)
        .await
        .map_err(|status| Fault::from_status("nothing listed", &status))?;
    agents.retain(|agent| selector.fits(&agent.labels));
    let response = v1::ListAgentsResponse { agents, next_page_token: String::new() };
    let names: Vec<&str> = response.agents.iter().map(|agent| names::last(&agent.name)).collect();
    app.answer(&response, "ListAgentsResponse", &names, |view| {
        match response.agents.is_empty() && !(filter.is_empty() && selector.is_empty()) {
            true => "No agent is like that. Next: mirrorctl agent list\n".to_owned(),
            false => text::agent::list(view, &response.agents),
        }
    })?;
    Ok(Exit::Done)
}

async fn show(app: &App, typed: &str) -> Outcome<Exit> {
    let client = app.connect().await?;
    let found = client.agents().get_agent(v1::GetAgentRequest { name: names::checked_agent(typed)? }).await;
    let agent = match found {
        Ok(agent) => agent.into_inner(),
        Err(status) => return Err(of_agent(app, &client, typed, "nothing shown", &status).await),
    };
    app.answer(&agent, "Agent", &[names::last(&agent.name)], |view| text::agent::show(view, &agent))?;
    Ok(Exit::Done)
}

/// The agent of a request, and which of its fields were typed.
fn settings(
    typed: &str,
    flags: &AgentFlags,
    failed: &str,
    help: &str,
) -> Outcome<(v1::Agent, prost_types::FieldMask)> {
    let mut faults = Faults::default();
    let AgentFlags { labels, max_running, max_serving, bandwidth } = flags;
    let name = names::noted_agent("AGENT", typed, &mut faults);
    let mut agent = v1::Agent { name, ..v1::Agent::default() };
    let mut paths = Vec::new();
    for (key, value) in request::label_changes(labels, &mut faults) {
        paths.push(format!("labels.{key}"));
        match value {
            Some(value) => drop(agent.labels.insert(key, value)),
            None => drop(agent.labels.remove(&key)),
        }
    }
    let caps = [
        ("max_running", max_running.is_some()),
        ("max_serving", max_serving.is_some()),
        ("bandwidth_limit_kib", bandwidth.is_some()),
    ];
    paths.extend(caps.into_iter().filter(|(_, given)| *given).map(|(path, _)| path.to_owned()));
    agent.max_running = max_running.unwrap_or(0);
    agent.max_serving = max_serving.unwrap_or(0);
    agent.bandwidth_limit_kib = bandwidth.unwrap_or(0);
    faults.finish(failed, help)?;
    Ok((agent, prost_types::FieldMask { paths }))
}

async fn create(app: &App, typed: &str, flags: &AgentFlags, dry_run: bool) -> Outcome<Exit> {
    const FAILED: &str = "agent not declared";
    const HELP: &str = "mirrorctl agent create --help";
    let (agent, _) = settings(typed, flags, FAILED, HELP)?;
    let client = app.connect().await?;
    let request_id = uuid::Uuid::new_v4().to_string();
    let request = v1::CreateAgentRequest { agent: Some(agent), request_id, validate_only: dry_run };
    let created = client.agents().create_agent(request).await;
    let agent = created.map_err(|status| {
        let fault = Fault::from_status(FAILED, &status);
        if fault.exit == Exit::BadInput { fault.next(HELP) } else { fault }
    })?;
    let agent = agent.into_inner();
    let name = names::last(&agent.name);
    let what = match dry_run {
        true => format!("{name} would be declared; nothing changed."),
        false => format!("{name} is declared; projects that name it wait until its host joins."),
    };
    app.changed(&agent, "Agent", &[name], &what, &format!("mirrorctl join-token create --name {name}"))?;
    Ok(Exit::Done)
}

async fn set(app: &App, typed: &str, flags: &AgentFlags, dry_run: bool) -> Outcome<Exit> {
    const FAILED: &str = "agent not changed";
    const HELP: &str = "mirrorctl agent set --help";
    let (agent, mask) = settings(typed, flags, FAILED, HELP)?;
    if mask.paths.is_empty() {
        let mut faults = Faults::default();
        faults.add("--label", "or --max-running, --max-serving or --bandwidth is needed: what is to be set?");
        faults.finish(FAILED, HELP)?;
    }
    let client = app.connect().await?;
    let request =
        v1::UpdateAgentRequest { agent: Some(agent), update_mask: Some(mask), validate_only: dry_run };
    let agent = match client.agents().update_agent(request).await {
        Ok(agent) => agent.into_inner(),
        Err(status) => {
            let fault = of_agent(app, &client, typed, FAILED, &status).await;
            return Err(if fault.exit == Exit::BadInput { fault.next(HELP) } else { fault });
        }
    };
    let name = names::last(&agent.name);
    let told = text::agent::told(&agent);
    let what = if dry_run { format!("{told} Nothing changed: a dry run.") } else { told };
    app.changed(&agent, "Agent", &[name], &what, &format!("mirrorctl agent show {name}"))?;
    Ok(Exit::Done)
}

async fn drain(app: &App, agents: &AgentsArg) -> Outcome<Exit> {
    const WORDS: Words = Words { kind: "agent", does: "drains", failed: "not drained" };
    const FAILED: &str = "agent not drained";
    let client = app.connect().await?;
    let chosen = several::agents(app, &client, agents, FAILED).await?;
    several::each(app, &chosen, WORDS, async |typed| {
        let request = v1::DrainAgentRequest { name: names::checked_agent(typed)? };
        let agent = match client.agents().drain_agent(request).await {
            Ok(agent) => agent.into_inner(),
            Err(status) => return Err(of_agent(app, &client, typed, FAILED, &status).await),
        };
        let name = names::last(&agent.name);
        let running = match agent.running {
            0 => "nothing runs on it".to_owned(),
            1 => "1 running one goes on".to_owned(),
            running => format!("{running} running ones go on"),
        };
        let what = format!("{name} takes no new attempts; {running}.");
        Done::new(&agent, "Agent", name, what, format!("mirrorctl agent undrain {name}"))
    })
    .await
}

async fn undrain(app: &App, agents: &AgentsArg) -> Outcome<Exit> {
    const WORDS: Words = Words { kind: "agent", does: "undrains", failed: "not undrained" };
    const FAILED: &str = "agent still drained";
    let client = app.connect().await?;
    let chosen = several::agents(app, &client, agents, FAILED).await?;
    several::each(app, &chosen, WORDS, async |typed| {
        let request = v1::UndrainAgentRequest { name: names::checked_agent(typed)? };
        let agent = match client.agents().undrain_agent(request).await {
            Ok(agent) => agent.into_inner(),
            Err(status) => return Err(of_agent(app, &client, typed, FAILED, &status).await),
        };
        let name = names::last(&agent.name);
        let what = format!("{name} takes attempts again.");
        Done::new(&agent, "Agent", name, what, format!("mirrorctl agent show {name}"))
    })
    .await
}

async fn revoke(app: &App, typed: &str, reason: String) -> Outcome<Exit> {
    let client = app.connect().await?;
    let short = names::last(typed);
    // Asked after, so that nobody confirms a name that does not exist.
    let found = client.agents().get_agent(v1::GetAgentRequest { name: names::checked_agent(typed)? }).await;
    if let Err(status) = found {
        return Err(of_agent(app, &client, typed, "agent not revoked", &status).await);
    }
    let question =
        format!("This cuts {short}'s session and refuses its certificate for ever; it must enrol anew.");
    confirm(&question, Wanted::Name(short), app.global.yes)?;
    let revoked = client
        .agents()
        .revoke_agent(v1::RevokeAgentRequest { name: names::checked_agent(typed)?, reason })
        .await;
    let agent = match revoked {
        Ok(agent) => agent.into_inner(),
        Err(status) => return Err(of_agent(app, &client, typed, "agent not revoked", &status).await),
    };
    let what = format!("{short} is revoked.");
    app.changed(&agent, "Agent", &[short], &what, &format!("mirrorctl agent delete {short}"))?;
    Ok(Exit::Done)
}

async fn replace(app: &App, request: v1::ReplaceAgentRequest) -> Outcome<Exit> {
    const FAILED: &str = "agent not replaced";
    let client = app.connect().await?;
    let (old, new) = (names::last(&request.name).to_owned(), names::last(&request.replacement).to_owned());
    let (dry_run, revoke) = (request.validate_only, request.revoke);
    let failed = |status: &Status| {
        let mut fault = Fault::from_status(FAILED, status);
        // The one argument of this command that is called otherwise than in the others.
        for (label, _) in fault.details.iter_mut().filter(|(label, _)| label == "NAME") {
            "OLD".clone_into(label);
        }
        fault
    };
    if revoke && !dry_run {
        // Asked after, so that nobody confirms what is refused anyway.
        let look = v1::ReplaceAgentRequest { validate_only: true, ..request.clone() };
        client.agents().replace_agent(look).await.map_err(|status| failed(&status))?;
        let question = format!(
            "This puts {new} in {old}'s place, cuts {old}'s session and refuses its certificate for ever."
        );
        confirm(&question, Wanted::Name(&old), app.global.yes)?;
    }
    let replaced = client.agents().replace_agent(request).await;
    let response = replaced.map_err(|status| failed(&status))?.into_inner();
    let names: Vec<&str> = response.placements.iter().map(|one| names::last(&one.project)).collect();
    app.answer(&response, "ReplaceAgentResponse", &names, |view| {
        text::agent::replaced(
            view,
            &text::agent::Replacement { old: &old, new: &new, dry_run, revoke },
            &response,
        )
    })?;
    app.hint(if dry_run {
        "Nothing changed; without --dry-run it is done."
    } else {
        "Next: mirrorctl status"
    });
    Ok(Exit::Done)
}

async fn delete(app: &App, typed: &str) -> Outcome<Exit> {
    const FAILED: &str = "agent not deleted";
    let client = app.connect().await?;
    let found = client.agents().get_agent(v1::GetAgentRequest { name: names::checked_agent(typed)? }).await;
    let agent = match found {
        Ok(agent) => agent.into_inner(),
        Err(status) => return Err(of_agent(app, &client, typed, FAILED, &status).await),
    };
    let short = names::last(&agent.name);
    confirm(&format!("Remove the record of {short}?"), Wanted::Yes, app.global.yes)?;
    let deleted = client.agents().delete_agent(v1::DeleteAgentRequest { name: agent.name.clone() }).await;
    if let Err(status) = deleted {
        let fault = of_agent(app, &client, typed, FAILED, &status).await;
        let revoked = status.code() != Code::FailedPrecondition;
        return Err(if revoked { fault } else { fault.next(format!("mirrorctl agent revoke {short}")) });
    }
    app.changed(&agent, "Agent", &[short], &format!("{short} deleted."), "mirrorctl agent list")?;
    Ok(Exit::Done)
}
