"""`python -m nestnet` is the `nestnet` command."""

from nestnet.cli.main import main

raise SystemExit(main())
