"""``python -m dolmen`` is ``dolmen``; torchrun starts it this way."""

from dolmen.cli import main

raise SystemExit(main())
