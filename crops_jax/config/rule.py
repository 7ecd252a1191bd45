"""The check of one rule of a configuration. Each __post_init__ only validates; it never changes a field."""


def require(condition: bool, rule: str, value: object) -> None:
    """Raises ValueError with the rule and the value that breaks it, unless the condition holds."""
    if not condition:
        raise ValueError(f"configuration: {rule}, found {value}")
