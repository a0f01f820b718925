//! The suites, run by name.

use std::process::ExitCode;

use clap::Parser;
use interop::scenario::Selection;
use interop::suites::SUITES;
use interop::uml;

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    /// Which suite; none lists them
    suite: Option<String>,
    /// The selection that the tests run
    #[arg(long)]
    quick: bool,
    /// Only list the scenarios
    #[arg(long)]
    list: bool,
    /// Scenarios whose name contains this
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
}

fn main() -> ExitCode {
    // The first process of a User Mode Linux node is this program too.
    if let Some(name) = std::env::var_os(uml::GUEST_VARIABLE) {
        uml::guest_main(&name);
    }
    let cli = Cli::parse();
    let Some(name) = cli.suite else {
        for suite in SUITES {
            println!("{:10} {}", suite.name, suite.against);
        }
        return ExitCode::SUCCESS;
    };
    let Some(suite) = SUITES.iter().find(|suite| suite.name == name) else {
        let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        eprintln!("interop: unknown suite `{name}`; there are {}", names.join(", "));
        return ExitCode::from(2);
    };
    let selection = Selection { quick: cli.quick, list: cli.list, only: cli.only };
    match (suite.run)(&selection) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("interop {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
