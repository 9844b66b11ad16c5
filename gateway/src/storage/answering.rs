use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::storage::Result;
use crate::storage::append::Appended;

/// Where the answer to an append goes.
pub(super) type AppendReply = oneshot::Sender<Result<Vec<Appended>>>;

/// The appends of one batch, each with who waits for it.
pub(super) type Answers = Vec<(AppendReply, Vec<Appended>)>;

/// Who tells those who wait that their events are durable. To wake a task of another runtime takes
/// a call of the system, and a batch has dozens who wait: so one task among them is woken, and wakes
/// the others.
#[derive(Default)]
pub(super) struct Answering(Option<mpsc::UnboundedSender<Answers>>);

impl Answering {
    /// By a task on the current runtime, which ends behind the last answer.
    pub(super) fn by_task(tasks: &mut JoinSet<()>) -> Self {
        let (answers, mut written) = mpsc::unbounded_channel();
        tasks.spawn(async move {
            while let Some(answers) = written.recv().await {
                give_all(answers);
            }
        });
        Self(Some(answers))
    }

    /// Gives each its answer; where there is no task, at once.
    pub(super) fn give(&self, answers: Answers) {
        let unsent = match &self.0 {
            _ if answers.is_empty() => return,
            Some(task) => task.send(answers).map_err(|it| it.0),
            None => Err(answers),
        };
        if let Err(answers) = unsent {
            give_all(answers);
        }
    }
}

fn give_all(answers: Answers) {
    for (reply, appended) in answers {
        // A caller that went away does not need its answer.
        let _ = reply.send(Ok(appended));
    }
}
