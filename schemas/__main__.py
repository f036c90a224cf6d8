"""``python -m schemas`` writes the generated documents anew."""

from schemas.generate import documents


def main() -> None:
    """Writes every file, and removes those whose model is gone."""
    written = documents()
    for path, text in written.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    directories = {path.parent for path in written}
    for stale in {path for directory in directories for path in directory.glob("*.json")} - set(
        written
    ):
        stale.unlink()


if __name__ == "__main__":
    main()
