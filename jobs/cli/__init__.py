"""The command line: one module a group of commands, beside what they share.

Shared are options, progress, exits (exit codes and signals) and terminal, through which everything
printed goes. What commands do lives in jobs, cluster and pipeline. Nothing is exported here, and
main imports a command's module only when it is used: --version and --help load no library.
"""
