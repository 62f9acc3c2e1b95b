"""The commands of `earwitness`, one file each: `add_parser(subparsers)` and `main(args)`, returning the exit code."""
