"""What happens when x is changed: studies of interventions."""
