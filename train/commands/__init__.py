"""The commands of `earwitness-train`, one file each: `add_parser(subparsers)`, and `main(args)`, the exit code.

`dispatch` runs them, `options` has the options that they share.
"""
