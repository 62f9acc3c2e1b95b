"""The commands of `earwitness`, one file each: `add_parser(subparsers)` and `main(args)`, which gives the exit code."""
