//! One binary of end-to-end tests: whole fleets of the real programs, as people use them. Each test has a
//! fleet, a directory and an address of its own.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a harness starts programs, and says what it skips"
)]

mod abuse;
mod accounts;
mod agents;
mod apply;
mod audit;
mod autonomy;
mod chaos;
mod check;
mod clients;
mod contain;
mod day_one;
mod deploy;
mod docs;
mod edges;
mod fallback;
mod foreign;
mod fuzz;
mod guards;
mod hostile;
mod imports;
mod jail;
mod limits;
mod load;
mod markers;
mod moves;
mod options;
mod partition;
mod people;
mod phases;
mod project_life;
mod pushes;
mod refuse;
mod renew;
mod replace;
mod replicas;
mod reseed;
mod road;
mod rotate;
mod rows;
mod schedules;
mod secrets;
mod store;
mod survive;
mod tidy;
mod trace;
mod trash;
mod words;
