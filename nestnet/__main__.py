"""`python -m nestnet` is the `nestnet` command."""

from nestnet.cli import main

raise SystemExit(main())
