//! Every word of the deny table's file, as a project's options.

use mirror_proto::{status::Fault, v1};
use tonic::Code;

use super::{fleet, good, records};

/// Words of one declaration: so many that all their faults fit into one status.
const AT_ONCE: usize = 12;

fn hostile() -> Vec<(String, String)> {
    let lines = include_str!("../../../rsync/tests/hostile_words.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn every_hostile_word_is_refused_by_its_place_and_reason() {
    let (fleet, mut projects) = fleet().await;
    let before = records(&fleet);
    for many in hostile().chunks(AT_ONCE) {
        let mut project = good("debian", "ftp1");
        let options = many.iter().map(|(word, _)| word.clone()).collect();
        project.rsync = Some(v1::RsyncSettings { options, ..Default::default() });
        let request =
            v1::CreateProjectRequest { project: Some(project), validate_only: true, ..Default::default() };
        let refused = projects.create_project(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        let faults = Fault::from(&refused).violations;
        assert_eq!(faults.len(), many.len(), "{faults:#?}");
        for (index, (fault, (word, reason))) in faults.iter().zip(many).enumerate() {
            assert_eq!(fault.field, format!("rsync.options[{index}]"), "{word:?}");
            assert!(fault.description.contains(reason), "{word:?}: {fault:?}, expected {reason:?}");
            assert!(!fault.description.chars().any(char::is_control), "{fault:?}");
        }
    }
    // One at a time, and not only asked: nothing comes of it either.
    for (word, reason) in hostile().iter().step_by(10) {
        let mut project = good("debian", "ftp1");
        project.rsync = Some(v1::RsyncSettings { options: vec![word.clone()], ..Default::default() });
        let request = v1::CreateProjectRequest { project: Some(project), ..Default::default() };
        let refused = projects.create_project(request).await.unwrap_err();
        let faults = Fault::from(&refused).violations;
        assert!(faults.len() == 1 && faults[0].description.contains(reason), "{word:?}: {faults:?}");
    }
    let list = projects.list_projects(v1::ListProjectsRequest::default()).await.unwrap().into_inner();
    assert_eq!((list.projects.len(), records(&fleet)), (0, before));
    fleet.end().await;
}
