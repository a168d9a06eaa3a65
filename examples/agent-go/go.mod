module ncfast.example/agent-go

go 1.22
